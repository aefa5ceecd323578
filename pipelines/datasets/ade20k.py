"""ADE20K as the scene parsing benchmark publishes it (ADEChallengeData2016).

::

    images/training/<id>.jpg, images/validation/<id>.jpg
    annotations/training/<id>.png, ...    8-bit grey: 0 void, 1..150
    objectInfo150.txt                     tab-separated: Idx, Ratio, Train, Val, Name

They may lie deeper, as in ``ADEChallengeData2016/``. Without objectInfo150.txt the classes are
called "class 1" to "class 150", after their numbers in the files.
"""

from __future__ import annotations

import csv

from fcn_model.classes import ClassList
from fcn_model.errors import SpecError
from pipelines import storage
from pipelines.datasets.tree import Listing, Sample, Tree, check_unique
from pipelines.errors import InputError, NotFoundError
from pipelines.label_rules import from_one
from pipelines.records import LABEL
from pipelines.suffixes import without_suffix

LAYOUT = (
    "layout ade20k is images/<split>/<id>.jpg and annotations/<split>/<id>.png, <split> training "
    "or validation, and objectInfo150.txt for the names"
)

CLASSES = 150
NAMES = "objectInfo150.txt"


def found_in(tree: Tree) -> bool:
    """Whether a folder is laid out like this."""
    return bool(_splits(tree.holding("annotations")))


def _splits(tree: Tree) -> list[str]:
    names = ("training", "validation")
    return [
        name for name in names if tree.has(f"annotations/{name}") and tree.has(f"images/{name}")
    ]


def read_ade20k(tree: Tree, split: str | None) -> Listing:
    """The images of one split, sorted; the key is the file name without suffix.

    Raises InputError if no split is named and there are two, NotFoundError for a missing folder or
    label.
    """
    tree = tree.holding("annotations")
    splits = _splits(tree)
    if not splits or (split is not None and split not in splits):
        wanted = split or "training"
        raise NotFoundError(
            f"{tree.root} has no images/{wanted} with annotations/{wanted}; "
            f"the splits here are {splits}; {LAYOUT}"
        )
    if split is None and len(splits) > 1:
        raise InputError(f"{tree.root} has the splits {splits}; choose one with split")
    folder = f"images/{split or splits[0]}"
    samples = []
    for key in tree.below(folder):
        stem = without_suffix(key).removeprefix("images/")
        label = tree.ref(f"annotations/{stem}.png", f"{key} is there; {LAYOUT}")
        samples.append(Sample(stem.partition("/")[2], tree.objects[key], label))
    where = storage.join(tree.root, folder)
    return Listing(_classes(tree), check_unique(samples, where), rules={LABEL: from_one(CLASSES)})


def _classes(tree: Tree) -> ClassList:
    if NAMES not in tree.objects:
        return ClassList(names=tuple(f"class {number}" for number in range(1, CLASSES + 1)))
    where = storage.join(tree.root, NAMES)
    header, *rows = csv.reader(tree.lines(NAMES, LAYOUT), delimiter="\t")
    try:
        named = {int(row[0]): row[header.index("Name")].strip() for row in rows}
        return ClassList(names=tuple(named[number] for number in range(1, CLASSES + 1)))
    except (ValueError, IndexError, KeyError, SpecError) as error:
        raise InputError(
            f"{where} does not name classes 1 to {CLASSES} in columns Idx and Name ({error!r})"
        ) from error
