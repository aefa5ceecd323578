"""The Semantic Boundaries Dataset (SBD): more labels for the images of PASCAL VOC.

::

    train.txt, val.txt      ids, one per line
    img/<id>.jpg
    cls/<id>.mat            MATLAB 5: GTcls.Segmentation, 0 background, 1..20; no void

They may lie deeper, as in the published ``benchmark_RELEASE/dataset/``. The paper trains on
train.txt, 8,498 images, and scores on what of VOC 2011's segmentation val is not in it.
"""

from __future__ import annotations

from pipelines.datasets.tree import Listing, Sample, Tree, check_unique, read_list
from pipelines.datasets.voc import CLASSES
from pipelines.label_rules import LabelRule
from pipelines.records import LABEL

LAYOUT = "layout sbd is <split>.txt, img/<id>.jpg and cls/<id>.mat, as in benchmark_RELEASE/dataset"

RULE = LabelRule(member=("GTcls", "Segmentation"), table=bytes(range(len(CLASSES))))
"""GTcls is a struct; its other fields, Boundaries and CategoriesPresent, are not needed."""


def found_in(tree: Tree) -> bool:
    """Whether a folder is laid out like this."""
    inside = tree.holding("cls")
    return bool(inside.names("cls", ".mat")) and inside.has("img")


def read_sbd(tree: Tree, split: str | None) -> Listing:
    """The images of one list, in its order; the key is the id. Classes and colours are VOC's.

    Raises InputError if no split is named and there are several, NotFoundError for a missing list,
    image or label.
    """
    tree = tree.holding("cls")
    where, ids = read_list(tree, "", split, LAYOUT)
    samples = [
        Sample(
            name,
            tree.ref(f"img/{name}.jpg", f"{where} lists {name!r}; {LAYOUT}"),
            tree.ref(f"cls/{name}.mat", f"{where} lists {name!r}; {LAYOUT}"),
        )
        for name in ids
    ]
    return Listing(CLASSES, check_unique(samples, where), rules={LABEL: RULE})
