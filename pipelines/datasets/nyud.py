"""NYUDv2 as Gupta et al. and the paper keep it.

::

    train.txt, val.txt, test.txt    ids, one per line, such as 5001
    data/images/img_<id>.png        8-bit RGB
    data/depth/img_<id>.png         16-bit grey; may be left out
    data/hha/img_<id>.png           8-bit, three channels, kept in their order; may be left out
    segmentation/img_<id>.mat       MATLAB 5: segmentation, 0 void, 1..40
"""

from __future__ import annotations

from fcn_model.classes import ClassList
from pipelines import storage
from pipelines.datasets.tree import Listing, Sample, Tree, check_unique, read_list
from pipelines.label_rules import from_one
from pipelines.records import LABEL

LAYOUT = (
    "layout nyud is <split>.txt, data/images/img_<id>.png, segmentation/img_<id>.mat and, "
    "for all or none, data/depth/img_<id>.png and data/hha/img_<id>.png"
)

CLASSES = ClassList(
    names=(
        *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window"),
        *("bookshelf", "picture", "counter", "blinds", "desk", "shelves", "curtain", "dresser"),
        *("pillow", "mirror", "floor mat", "clothes", "ceiling", "books", "refridgerator"),
        *("television", "paper", "towel", "shower curtain", "box", "whiteboard", "person"),
        *("night stand", "toilet", "sink", "lamp", "bathtub", "bag", "otherstructure"),
        *("otherfurniture", "otherprop"),
    ),
)
"""The 40 classes of Gupta et al. (CVPR 2013), spelt as published; colours are VOC's."""

RULE = from_one(40, ("segmentation",))


def found_in(tree: Tree) -> bool:
    """Whether a folder is laid out like this."""
    return bool(tree.names("segmentation", ".mat")) and tree.has("data/images")


def read_nyud(tree: Tree, split: str | None) -> Listing:
    """The images of one list, in its order; the key is the id.

    Split ``trainval``, on which the paper trains, is train and val where it has no list of its own.
    Raises InputError if no split is named and there are several, NotFoundError for a missing list,
    image, label or plane.
    """
    if split == "trainval" and "trainval.txt" not in tree.objects:
        where = f"{storage.join(tree.root, 'train.txt')} with val.txt"
        ids = [name for part in ("train", "val") for name in read_list(tree, "", part, LAYOUT)[1]]
    else:
        where, ids = read_list(tree, "", split, LAYOUT)
    planes = [name for name in ("depth", "hha") if tree.has(f"data/{name}")]
    samples = []
    for name in ids:
        needed = f"{where} lists {name!r}; {LAYOUT}"
        samples.append(
            Sample(
                name,
                tree.ref(f"data/images/img_{name}.png", needed),
                tree.ref(f"segmentation/img_{name}.mat", needed),
                tuple(
                    (plane, tree.ref(f"data/{plane}/img_{name}.png", needed)) for plane in planes
                ),
            )
        )
    return Listing(CLASSES, check_unique(samples, where), rules={LABEL: RULE})
