"""Folder pairs: ``images/`` and ``labels/`` with equal names, and a list of the classes.

::

    classes.json            {"names": [...], "palette": [[r, g, b], ...], "void_id": 255}
    classes.txt             or: one class name per line; void is 255
    images/any/where/a.jpg
    labels/any/where/a.png  palette or 8-bit grey PNG of class ids
    train.txt               for a split: keys, one per line, such as any/where/a
"""

from __future__ import annotations

from fcn_model.classes import ClassList
from fcn_model.errors import SpecError
from pipelines import storage
from pipelines.datasets.tree import Listing, Sample, Tree, check_unique
from pipelines.errors import InputError, NotFoundError
from pipelines.suffixes import without_suffix


def read_pairs(tree: Tree, split: str | None) -> Listing:
    """All pairs, sorted by key, or those that ``<split>.txt`` lists, in its order.

    The key is the path below ``images/`` without suffix. Raises NotFoundError for a missing
    partner, list or class list, InputError for a key that is ambiguous.
    """
    layout = f"{tree.root} has layout pairs: images/NAME.jpg and labels/NAME.png"
    images = [without_suffix(key).removeprefix("images/") for key in tree.below("images")]
    labels = {without_suffix(key).removeprefix("labels/") for key in tree.below("labels")}
    if not images or not labels:
        raise NotFoundError(
            f"{tree.root} holds {len(images)} images below images/ and {len(labels)} labels below "
            "labels/; layout pairs needs images/NAME.jpg and labels/NAME.png"
        )
    if split is None:
        where, keys = tree.root, images
        if spare := sorted(labels - set(images)):
            raise NotFoundError(f"label labels/{spare[0]}.* has no image; {layout}")
    else:
        where = storage.join(tree.root, f"{split}.txt")
        keys = tree.lines(f"{split}.txt", f"split {split!r} is a list of keys, one per line")
    samples = [
        Sample(
            key,
            tree.image(f"images/{key}", layout),
            tree.image(f"labels/{key}", layout, "label"),
        )
        for key in keys
    ]
    return Listing(_classes(tree), check_unique(samples, where))


def _classes(tree: Tree) -> ClassList:
    classes = tree.classes()
    if classes is not None:
        return classes
    needed = "or classes.json; labelled data needs the names of its ids 0, 1, ..."
    names = tree.lines("classes.txt", needed)
    try:
        return ClassList(names=tuple(names))
    except SpecError as error:
        raise InputError(f"{storage.join(tree.root, 'classes.txt')}: {error}") from error
