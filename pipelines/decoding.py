"""One labelled record decoded and checked: what may be trained on, scored or kept in a shard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from fcn_model.classes import ClassList
from pipelines import images
from pipelines.errors import ImageError, InputError, LabelError
from pipelines.records import LABEL, Record

MEASURED: Mapping[str, Callable[[bytes], np.ndarray]] = {
    "depth": images.decode_depth,
    "hha": images.decode_hha,
}
"""The planes that are no labels, and how they are decoded."""

PLANE_PIXELS: Mapping[str, tuple[type[np.generic], tuple[int, ...]]] = {
    "depth": (np.uint16, ()),
    "hha": (np.uint8, (3,)),
    "geo": (np.uint8, ()),
}
"""Type and further axes of a plane's pixels, beside height and width."""


@dataclass(frozen=True)
class Pair:
    """One decoded training example: ``image`` (H, W, 3) uint8 RGB, ``label`` (H, W) uint8.

    ``planes`` has what else the data set knows about each pixel: ``depth`` (H, W) uint16 as stored,
    0 where nothing was measured; ``hha`` (H, W, 3) uint8 in its own channel order; ``geo`` (H, W)
    uint8, a second label.
    """

    key: str
    image: np.ndarray
    label: np.ndarray
    planes: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """The size of all arrays in bytes."""
        arrays = (self.image, self.label, *self.planes.values())
        return sum(array.nbytes for array in arrays)


def decode_pair(
    record: Record, classes: ClassList, tasks: Mapping[str, ClassList] | None = None
) -> Pair:
    """Decode and check one labelled record with all planes that it has.

    ``tasks`` are the class lists of the planes that are labels. Raises InputError naming the image
    if it has no label or a file cannot be decoded, and LabelError if an id is outside its class
    list, or if the label or a plane has another size than the upright image.
    """
    where = f"image {record.key} ({record.uri})"
    if record.label is None:
        raise InputError(f"{where} has no label; labelled data needs one for each image")
    try:
        image = images.decode_image(record.image)
    except ImageError as error:
        raise InputError(f"{where} cannot be read ({error.kind}): {error}") from error
    size = image.shape[:2]
    label = _label(record, LABEL, record.label, classes, where, size)
    planes = {}
    for name, data in record.planes.items():
        if name in MEASURED:
            planes[name] = _measured(name, data, where, size)
        elif tasks and name in tasks:
            planes[name] = _label(record, name, data, tasks[name], where, size)
        else:
            raise InputError(f"{where} has a label {name!r}, but nothing says what its ids mean")
    return Pair(record.key, image, label, planes)


def _label(
    record: Record,
    name: str,
    data: bytes,
    classes: ClassList,
    where: str,
    size: tuple[int, ...],
) -> np.ndarray:
    what = "label" if name == LABEL else f"{name} label"
    try:
        label = record.rule(name).decode(data, where)
    except ImageError as error:
        raise LabelError(f"{where}: its {what} cannot be read ({error.kind}): {error}") from error
    images.check_label(label, classes, where, image_size=(size[0], size[1]))
    return label


def _measured(name: str, data: bytes, where: str, size: tuple[int, ...]) -> np.ndarray:
    try:
        plane = MEASURED[name](data)
    except ImageError as error:
        raise InputError(f"{where}: its {name} cannot be read ({error.kind}): {error}") from error
    if plane.shape[:2] != size:
        raise InputError(
            f"{where}: its {name} is {plane.shape[0]}x{plane.shape[1]} pixels (height x width), "
            f"the image {size[0]}x{size[1]}; planes are never resized"
        )
    return plane
