"""One part of masks against its labels: integer counts per image, no ratio yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from fcn_model import ClassList, Confusion
from pipelines import images
from pipelines.errors import ImageError, InputError, LabelError
from pipelines.masks.generation import PartName
from pipelines.parquet_file import open_parquet
from pipelines.records import LABEL
from pipelines.schemas import MASKS, classes_of
from pipelines.storage import ObjectRef
from pipelines.units import StoredLabel, Unit, read_labels

REASON = 300
"""Characters of a reason that are kept."""

Status = Literal["ok", "error", "no_label", "bad_label", "size_mismatch", "bad_mask"]
"""Only ``ok`` rows are scored. ``error``: the mask is an error row. ``no_label``: there is nothing
to compare with. ``bad_label``: the label cannot be decoded, or holds ids outside the class list.
``size_mismatch``: label and mask differ in size; neither is ever resized. ``bad_mask``: the mask
cannot be decoded, or has another size than its row says."""


@dataclass(frozen=True)
class MaskKeys:
    """What the driver needs of a part: which records its rows are of, the models and the classes.

    ``uris`` name the objects that the images came from. ``records`` are places in the part's unit.
    """

    part: ObjectRef
    keys: tuple[str, ...]
    uris: tuple[str, ...]
    records: tuple[int, ...]
    models: frozenset[str]
    classes: ClassList | None

    @property
    def unit(self) -> str:
        """The unit that the part is of, or empty if the file was renamed."""
        name = PartName.parse(self.part.uri.rsplit("/", 1)[1])
        return name.unit if name else ""


@dataclass(frozen=True)
class ImageScore:
    """One mask row. Only ``ok`` has counts, by class: of pixels that are not void in the label.

    ``reason`` says why it was not scored, where the status does not say it all.
    """

    key: str
    status: Status
    reason: str = ""
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
    table = read_part(part, ["key", "uri", "record", "model"])
    return MaskKeys(
        part=part,
        keys=tuple(table["key"].to_pylist()),
        uris=tuple(table["uri"].to_pylist()),
        records=tuple(table["record"].to_pylist()),
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
    number of the unit in ``label_units`` and the row there that hold its label, or None. A row that
    cannot be scored gets another `Status` than ``ok`` and a reason. Raises InputError, naming the
    image, for a mask of other classes.
    """
    columns = ["key", "status", "height", "width", "mask"]
    rows = read_part(part, columns).to_pylist()
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
        score = _score_row(row, labels[place] if place else None, classes)
        if isinstance(score, tuple):
            total += score[0]
            score = ImageScore.of(row["key"], *score)
        scores.append(score)
    return PartScore(total, tuple(scores))


def _score_row(
    row: dict[str, Any], stored: StoredLabel | None, classes: ClassList
) -> ImageScore | tuple[Confusion, int]:
    """The counts of one image and its void pixels, or why there are none."""
    key, size = row["key"], (row["height"], row["width"])
    if row["status"] != "ok":
        return ImageScore(key, "error")
    if stored is None or stored.data is None:
        return ImageScore(key, "no_label")
    try:
        predicted = images.decode_label(row["mask"]["bytes"], max_pixels=max(1, size[0] * size[1]))
    except ImageError as error:
        return ImageScore(key, "bad_mask", f"its mask cannot be read: {error}"[:REASON])
    if predicted.shape != size:
        return ImageScore(key, "bad_mask", f"its mask is {_size(predicted)}, its row {size}")
    return _compare(key, predicted, stored, classes)


def _compare(
    key: str, predicted: images.Pixels, stored: StoredLabel, classes: ClassList
) -> ImageScore | tuple[Confusion, int]:
    where = f"{key} ({stored.uri})"
    assert stored.data is not None
    try:
        limit = max(predicted.size, images.DEFAULT_MAX_PIXELS)
        label = stored.rule.decode(stored.data, where, max_pixels=limit)
        images.check_label(label, classes, where)
    except (ImageError, LabelError) as error:
        return ImageScore(key, "bad_label", str(error)[:REASON])
    if label.shape != predicted.shape:
        reason = f"its label is {_size(label)}, its mask {_size(predicted)} (height×width)"
        return ImageScore(key, "size_mismatch", reason)
    confusion = Confusion(len(classes))
    try:
        confusion.update(label, predicted, classes.void_id)
    except ValueError as error:
        raise InputError(f"image {where}: {error}; the masks have other classes") from error
    return confusion, int(np.count_nonzero(label == classes.void_id))


def _size(ids: images.Pixels) -> str:
    return f"{ids.shape[0]}×{ids.shape[1]}"


def read_part(part: ObjectRef, columns: list[str]) -> pa.Table:
    """Some columns of a part, checksums verified. Raises InputError if it is no part of masks."""
    with open_parquet(part) as file:
        found = {field.name: field.type for field in file.schema}
        wrong = [field.name for field in MASKS if found.get(field.name) != field.type]
        if wrong:  # also a column of pickled objects, which Ray would load
            raise InputError(
                f"{part.uri} is not a part of masks: columns {wrong} are missing or of "
                "another type; give the folder that jobs/segment.py printed"
            )
        return file.read(range(len(file.group_rows)), columns)
