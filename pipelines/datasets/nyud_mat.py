"""NYUDv2 as its authors publish it: one labelled file, and two small ones that say how to use it.

::

    nyu_depth_v2_labeled.mat    MATLAB 7.3 (HDF5): images, depths, labels 0 and 1..894
    splits.mat                  MATLAB 5: trainNdxs (795), testNdxs (654), counted from 1
    classMapping40.mat          MATLAB 5: mapClass, for each of the 894 labels its class 1..40

The first two are on the data set's page. The third maps to the 40 classes of Gupta et al.; it is in
the MATLAB code of Gupta et al. (rcnn-depth) and many copies of it. Images are 480x640 as in the
file; Gupta's, on which the paper works, are the same cut to 425x560.
"""

from __future__ import annotations

import numpy as np

from pipelines import matlab, nyu_records, storage
from pipelines.datasets.nyud import CLASSES
from pipelines.datasets.tree import Listing, Sample, Tree, check_unique
from pipelines.errors import ImageError, InputError
from pipelines.label_rules import LabelRule
from pipelines.nyu_records import FIRST_KEY
from pipelines.records import LABEL

FILE = "nyu_depth_v2_labeled.mat"
MAPPING = "classMapping40.mat"
SPLITS = "splits.mat"

LAYOUT = f"layout nyud-mat is {FILE}, {MAPPING} and {SPLITS} in one folder"


def found_in(tree: Tree) -> bool:
    """Whether a folder is laid out like this."""
    return FILE in tree.objects


def read_nyud_mat(tree: Tree, split: str | None) -> Listing:
    """The images of split ``train`` (the paper's trainval) or ``test``, in their order.

    The key is 5000 plus the number of the image, the id that Gupta et al. use. Each image has a
    ``depth`` plane in millimetres. Raises InputError if no split is named or a file is not as it
    should be, NotFoundError for a missing file.
    """
    file = tree.ref(FILE, LAYOUT)
    why = f"the 894 labels need {MAPPING} of Gupta et al. (rcnn-depth) to become 40 classes; "
    table = _mapping(tree, why + LAYOUT)
    if split not in {"train", "test"}:
        raise InputError(f"{tree.root} has the splits ['train', 'test']; choose one, not {split!r}")
    name = f"{split}Ndxs"
    numbers = _vector(tree, SPLITS, name, LAYOUT)
    count = nyu_records.count_images(file)
    if not numbers or min(numbers) < 1 or max(numbers) > count:
        raise InputError(
            f"{storage.join(tree.root, SPLITS)}: {name} has {len(numbers)} numbers from "
            f"{min(numbers, default=0)} to {max(numbers, default=0)}; "
            f"{FILE} has images 1 to {count}"
        )
    samples = [Sample(str(FIRST_KEY - 1 + number), file, None) for number in numbers]
    where = storage.join(tree.root, SPLITS)
    rule = LabelRule(table=bytes([255, *(value - 1 for value in table)]))
    return Listing(CLASSES, check_unique(samples, where), rules={LABEL: rule}, one_file=True)


def _mapping(tree: Tree, needed: str) -> list[int]:
    """The class 1..40 of each label from 1."""
    classes = _vector(tree, MAPPING, "mapClass", needed)
    if not classes or min(classes) < 1 or max(classes) != len(CLASSES):
        raise InputError(
            f"{storage.join(tree.root, MAPPING)}: mapClass goes from {min(classes, default=0)} to "
            f"{max(classes, default=0)}; wanted are the classes 1 to {len(CLASSES)}; {needed}"
        )
    return classes


def _vector(tree: Tree, key: str, variable: str, needed: str) -> list[int]:
    ref = tree.ref(key, needed)
    try:
        values = matlab.read_value(storage.read_bytes(ref.uri, etag=ref.etag), (variable,))
        whole = np.asarray(values, np.float64).ravel()
    except (ImageError, TypeError, ValueError) as error:
        raise InputError(f"{ref.uri} cannot be read: {error}; {needed}") from error
    if not np.array_equal(whole, np.rint(whole)):
        raise InputError(f"{ref.uri}: {variable} holds numbers that are not whole; {needed}")
    return [int(value) for value in whole]
