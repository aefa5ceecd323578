"""One part of masks against its labels: integer counts per image, no ratio yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fcn_model import ClassList, Confusion
from pipelines import images, storage
from pipelines.errors import ImageError, InputError
from pipelines.records import LABEL
from pipelines.schemas import MASKS, classes_of
from pipelines.storage import ObjectRef
from pipelines.units import StoredLabel, Unit, read_labels

Status = Literal["ok", "error", "no_label"]


@dataclass(frozen=True)
class MaskKeys:
    """What the driver needs of a part: its rows' keys, the models and the classes."""

    part: ObjectRef
    keys: tuple[str, ...]
    models: frozenset[str]
    classes: ClassList | None


@dataclass(frozen=True)
class ImageScore:
    """One mask row. Only ``ok`` has counts, by class: of pixels that are not void in the label."""

    key: str
    status: Status
    intersection: tuple[int, ...] = ()
    label_pixels: tuple[int, ...] = ()
    mask_pixels: tuple[int, ...] = ()
    void_pixels: int = 0

    @classmethod
    def of(cls, key: str, confusion: Confusion, void_pixels: int) -> ImageScore:
        """The score of one image from its counts."""
        counts = confusion.counts
        return cls(
            key=key,
            status="ok",
            intersection=tuple(np.diag(counts).tolist()),
            label_pixels=tuple(counts.sum(axis=1).tolist()),
            mask_pixels=tuple(counts.sum(axis=0).tolist()),
            void_pixels=void_pixels,
        )

    @property
    def pixel_accuracy(self) -> float:
        """The share of valid pixels that are right; NaN if there are none."""
        valid = sum(self.label_pixels)
        return sum(self.intersection) / valid if valid else float("nan")

    @property
    def mean_iu(self) -> float:
        """The mean over the classes in this image's label or mask; NaN if there are none."""
        unions = [
            label + mask - right
            for right, label, mask in zip(
                self.intersection, self.label_pixels, self.mask_pixels, strict=True
            )
        ]
        ius = [
            right / union for right, union in zip(self.intersection, unions, strict=True) if union
        ]
        return sum(ius) / len(ius) if ius else float("nan")


@dataclass(frozen=True)
class PartScore:
    """A part's rows in their order, and the sum of their counts."""

    confusion: Confusion
    images: tuple[ImageScore, ...]


def read_mask_keys(part: ObjectRef) -> MaskKeys:
    """Keys, models and classes of a part, without its masks.

    Raises InputError if the file is not a part of masks.
    """
    table = read_part(part, ["key", "model"])
    return MaskKeys(
        part=part,
        keys=tuple(table["key"].to_pylist()),
        models=frozenset(table["model"].unique().to_pylist()),
        classes=classes_of(table.schema),
    )


def score_part(
    part: ObjectRef,
    label_units: Sequence[Unit],
    places: Sequence[tuple[int, int] | None],
    classes: ClassList,
    label_name: str = LABEL,
) -> PartScore:
    """Score a part's rows.

    ``label_name`` is the label, or the plane that is another. ``places`` has, for every row, the
    number of the unit in ``label_units`` and the row there that hold its label, or None. Raises
    InputError, naming the image, for a mask or a label that cannot be read, a label that is missing
    or does not fit the classes, or sizes that differ.
    """
    rows = read_part(part, ["key", "status", "mask"]).to_pylist()
    assert len(rows) == len(places), "the part changed between planning and scoring"
    labels: dict[tuple[int, int], StoredLabel] = {}
    wanted = {place for place in places if place is not None}
    for number, unit in enumerate(label_units):
        for index, label in enumerate(read_labels(unit, label_name)):
            if (number, index) in wanted:
                labels[number, index] = label
    total = Confusion(len(classes))
    scores = []
    for row, place in zip(rows, places, strict=True):
        if row["status"] != "ok":
            scores.append(ImageScore(row["key"], "error"))
        elif place is None:
            scores.append(ImageScore(row["key"], "no_label"))
        else:
            confusion, void_pixels = _count(
                row["key"], row["mask"]["bytes"], labels[place], classes
            )
            total += confusion
            scores.append(ImageScore.of(row["key"], confusion, void_pixels))
    return PartScore(total, tuple(scores))


def _count(key: str, mask: bytes, stored: StoredLabel, classes: ClassList) -> tuple[Confusion, int]:
    """The counts of one image, and its void pixels."""
    where = f"{key} ({stored.uri})"
    if stored.data is None:
        raise InputError(f"image {where} has no label, so its mask cannot be scored")
    try:
        # Masks are our own, of any size that segmentation was told to accept.
        predicted = images.decode_label(mask, max_pixels=images.MAX_SIDE**2)
        limit = max(predicted.size, images.DEFAULT_MAX_PIXELS)
        label = stored.rule.decode(stored.data, where, max_pixels=limit)
    except ImageError as error:
        raise InputError(f"the label or mask of image {where} cannot be read: {error}") from error
    images.check_label(label, classes, where)
    if label.shape != predicted.shape:
        raise InputError(
            f"image {where}: its label is {label.shape[0]}×{label.shape[1]} and its mask "
            f"{predicted.shape[0]}×{predicted.shape[1]} (height×width); they are of other images"
        )
    confusion = Confusion(len(classes))
    try:
        confusion.update(label, predicted, classes.void_id)
    except ValueError as error:
        raise InputError(f"image {where}: {error}; the masks have other classes") from error
    return confusion, int(np.count_nonzero(label == classes.void_id))


def read_part(part: ObjectRef, columns: list[str]) -> pa.Table:
    """Some columns of a part, checksums verified. Raises InputError if it is no part of masks."""
    with storage.open_ranged(part) as file:
        try:
            with pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=True) as parquet:
                found = {field.name: field.type for field in parquet.schema_arrow}
                wrong = [field.name for field in MASKS if found.get(field.name) != field.type]
                if wrong:  # also a column of pickled objects, which Ray would load
                    raise InputError(
                        f"{part.uri} is not a part of masks: columns {wrong} are missing or of "
                        "another type; give the folder that jobs/segment.py printed"
                    )
                return parquet.read(columns, use_threads=False)
        except pa.ArrowException as error:
            raise InputError(f"{part.uri} is damaged or not Parquet: {error}") from error
