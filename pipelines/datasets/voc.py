"""The layout of PASCAL VOC's segmentation task.

::

    ImageSets/Segmentation/train.txt   ids, one per line
    JPEGImages/<id>.jpg
    SegmentationClass/<id>.png         palette indices: 0 background, 1..20, 255 void
    classes.json                       only for other classes than VOC's own
"""

from __future__ import annotations

from fcn_model.classes import ClassList
from pipelines import storage
from pipelines.datasets.tree import Listing, Sample, Tree, check_unique
from pipelines.errors import InputError, NotFoundError

LISTS = "ImageSets/Segmentation"

CLASSES = ClassList(
    names=(
        *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
        *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
        *("sheep", "sofa", "train", "tvmonitor"),
    ),
    void_id=255,
)
"""In VOC's order and colours; void is the border drawn around objects."""


def read_voc(tree: Tree, split: str | None) -> Listing:
    """The images of one list, in its order; the key is the id.

    Raises InputError if no split is named and there is more than one, NotFoundError for a missing
    list, image or label.
    """
    splits = sorted(
        key.removeprefix(f"{LISTS}/").removesuffix(".txt")
        for key in tree.objects
        if key.startswith(f"{LISTS}/") and key.endswith(".txt")
    )
    if not splits:
        raise NotFoundError(
            f"{tree.root} has no {LISTS}/<split>.txt; layout voc needs {LISTS}/<split>.txt, "
            "JPEGImages/<id>.jpg and SegmentationClass/<id>.png"
        )
    if split is None and len(splits) > 1:
        raise InputError(f"{tree.root} has the splits {splits}; choose one with split")
    key = f"{LISTS}/{split or splits[0]}.txt"
    where = storage.join(tree.root, key)
    ids = tree.lines(key, f"the splits here are {splits}")
    samples = [
        Sample(
            name,
            tree.image(f"JPEGImages/{name}", f"{where} lists {name!r}"),
            tree.image(f"SegmentationClass/{name}", f"{where} lists {name!r}"),
        )
        for name in ids
    ]
    return Listing(tree.classes() or CLASSES, check_unique(samples, where))
