"""PASCAL-Context: whole scenes of VOC 2010, of whose 459 labels the task takes 59.

::

    JPEGImages/<id>.jpg             of VOC 2010
    ImageSets/Main/train.txt        ids, one per line; val.txt, ...
    labels.txt                      lines "1: accordion", of all 459 labels
    59_labels.txt                   lines "1: aeroplane", of the 59 classes in their order
    trainval/<id>.mat               MATLAB 5: LabelMap, 1..459

VOC's folders may lie deeper, as in ``VOC2010/``, and so may the others. Papers score this set in
two ways that differ by several points, so the layout's name says which: ``context-59`` calls all
other labels void, ``context-60`` trains them as class 0, background, as the paper's networks do.
"""

from __future__ import annotations

from fcn_model.classes import ClassList
from fcn_model.errors import SpecError
from pipelines import storage
from pipelines.datasets.tree import Listing, Sample, Tree, check_unique, read_list
from pipelines.errors import InputError
from pipelines.label_rules import LabelRule
from pipelines.records import LABEL

LAYOUT = (
    "layouts context-59 and context-60 are JPEGImages/<id>.jpg and ImageSets/Main/<split>.txt of "
    "VOC 2010 (as in VOC2010), and labels.txt, 59_labels.txt and trainval/<id>.mat"
)

TASK_LIST = "59_labels.txt"

BRIDGES = {"diningtable": "table", "bedcloth": "bedclothes", "clothes": "cloth"}
"""Three of the 59 names as they stand in the list of all labels."""


def found_in(tree: Tree) -> bool:
    """Whether a folder is laid out like this."""
    return TASK_LIST in tree.holding(TASK_LIST).objects


def read_context_59(tree: Tree, split: str | None) -> Listing:
    """The images of one list, in its order; 59 classes, everything else void.

    Raises InputError if no split is named and there are several or the two lists of names do not
    fit, NotFoundError for a missing list, image or label.
    """
    return _read(tree, split, background=False)


def read_context_60(tree: Tree, split: str | None) -> Listing:
    """The images of one list, in its order; everything else is class 0 before the 59.

    Raises as `read_context_59`.
    """
    return _read(tree, split, background=True)


def _read(tree: Tree, split: str | None, *, background: bool) -> Listing:
    context, voc = tree.holding(TASK_LIST), tree.holding("JPEGImages")
    classes, rule = _classes(context, background=background)
    where, ids = read_list(voc, "ImageSets/Main", split, LAYOUT)
    samples = [
        Sample(
            name,
            voc.ref(f"JPEGImages/{name}.jpg", f"{where} lists {name!r}; {LAYOUT}"),
            context.ref(f"trainval/{name}.mat", f"{where} lists {name!r}; {LAYOUT}"),
        )
        for name in ids
    ]
    return Listing(classes, check_unique(samples, where), rules={LABEL: rule})


def _classes(tree: Tree, *, background: bool) -> tuple[ClassList, LabelRule]:
    """The classes, and how 0..459 become their ids."""
    every = _names(tree, "labels.txt")
    task = [name for name in _names(tree, TASK_LIST) if name != "background"]
    if len(task) != 59:
        where = storage.join(tree.root, TASK_LIST)
        raise InputError(f"{where} names {len(task)} classes; wanted are 59; {LAYOUT}")
    names = ["background", *task] if background else task
    table = bytearray([0 if background else 255] * (len(every) + 1))
    for name in task:
        full = BRIDGES.get(name, name)
        if full not in every:
            where = storage.join(tree.root, "labels.txt")
            raise InputError(f"{where} has no label {full!r}, which {TASK_LIST} names; {LAYOUT}")
        table[every.index(full) + 1] = names.index(name)
    try:
        classes = ClassList(names=tuple(names))
    except SpecError as error:
        raise InputError(f"{storage.join(tree.root, TASK_LIST)}: {error}") from error
    return classes, LabelRule(member=("LabelMap",), table=bytes(table))


def _names(tree: Tree, key: str) -> list[str]:
    """The names of lines "1: name", spaces in names removed as in the paper's code."""
    names: list[str] = []
    for line in tree.lines(key, LAYOUT):
        number, colon, name = line.partition(":")
        if number.strip() == "0":
            continue
        if not colon or number.strip() != str(len(names) + 1):
            where = storage.join(tree.root, key)
            raise InputError(f"{where}: {line!r} where '{len(names) + 1}: name' is wanted")
        names.append(name.replace(" ", ""))
    return names
