"""The layout of PASCAL VOC's segmentation task, of 2011 and 2012 among others.

::

    ImageSets/Segmentation/train.txt   ids, one per line
    JPEGImages/<id>.jpg
    SegmentationClass/<id>.png         palette indices: 0 background, 1..20, 255 void
    classes.json                       only for other classes than VOC's own
"""

from __future__ import annotations

from fcn_model.classes import ClassList
from pipelines.datasets.tree import Listing, Sample, Tree, check_unique, read_list

LISTS = "ImageSets/Segmentation"

LAYOUT = f"layout voc is {LISTS}/<split>.txt, JPEGImages/<id>.jpg and SegmentationClass/<id>.png"

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
    where, ids = read_list(tree, LISTS, split, LAYOUT)
    samples = [
        Sample(
            name,
            tree.image(f"JPEGImages/{name}", f"{where} lists {name!r}; {LAYOUT}"),
            tree.image(f"SegmentationClass/{name}", f"{where} lists {name!r}; {LAYOUT}", "label"),
        )
        for name in ids
    ]
    return Listing(tree.classes() or CLASSES, check_unique(samples, where))
