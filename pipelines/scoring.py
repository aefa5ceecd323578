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
from pipelines.schemas import MASKS
from pipelines.storage import ObjectRef
from pipelines.units import Unit, read_unit

Status = Literal["ok", "error", "no_label"]


@dataclass(frozen=True)
class MaskKeys:
    """What the driver needs of a part: its rows' keys and statuses, and the model."""

    part: ObjectRef
    keys: tuple[str, ...]
    statuses: tuple[str, ...]
    models: frozenset[str]


@dataclass(frozen=True)
class ImageScore:
    """One mask row. Only ``ok`` has counts: of all pixels that are not void in the label."""

    key: str
    status: Status
    counts: tuple[tuple[int, ...], ...] = ()
    void_pixels: int = 0


def read_mask_keys(part: ObjectRef) -> MaskKeys:
    """Keys, statuses and models of a part, without its masks.

    Raises InputError if the file is not a part of masks.
    """
    table = _read(part, ["key", "status", "model"])
    return MaskKeys(
        part=part,
        keys=tuple(table["key"].to_pylist()),
        statuses=tuple(table["status"].to_pylist()),
        models=frozenset(table["model"].unique().to_pylist()),
    )


def score_part(
    part: ObjectRef,
    label_units: Sequence[Unit],
    places: Sequence[tuple[int, int] | None],
    classes: ClassList,
) -> list[ImageScore]:
    """Score a part's rows in their order.

    ``places`` has, for every row, the number of the unit in ``label_units`` and the row there that
    hold its label, or None. Raises InputError, naming the image, for a mask or a label that
    cannot be read, a label that is missing or does not fit the classes, or sizes that differ.
    """
    rows = _read(part, ["key", "status", "mask"]).to_pylist()
    assert len(rows) == len(places), "the part changed between planning and scoring"
    labels: dict[tuple[int, int], tuple[str, bytes | None]] = {}
    wanted = {place for place in places if place is not None}
    for number, unit in enumerate(label_units):
        for index, record in enumerate(read_unit(unit)):
            if (number, index) in wanted:
                labels[number, index] = (record.uri, record.label)
    return [_score(row, labels, place, classes) for row, place in zip(rows, places, strict=True)]


def _score(
    row: dict[str, object],
    labels: dict[tuple[int, int], tuple[str, bytes | None]],
    place: tuple[int, int] | None,
    classes: ClassList,
) -> ImageScore:
    key, mask = str(row["key"]), row["mask"]
    if row["status"] != "ok":
        return ImageScore(key, "error")
    if place is None:
        return ImageScore(key, "no_label")
    uri, label_bytes = labels[place]
    where = f"{key} ({uri})"
    if label_bytes is None:
        raise InputError(f"image {where} has no label, so its mask cannot be scored")
    assert isinstance(mask, dict), f"row {key} is ok and has no mask"
    try:
        label = images.decode_label(label_bytes)
        predicted = images.decode_label(mask["bytes"])
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
    counts = tuple(tuple(line) for line in confusion.counts.tolist())
    return ImageScore(key, "ok", counts, int(np.count_nonzero(label == classes.void_id)))


def _read(part: ObjectRef, columns: list[str]) -> pa.Table:
    """Some columns of a part, checksums verified."""
    with storage.open_ranged(part) as file:
        try:
            with pq.ParquetFile(file, page_checksum_verification=True, pre_buffer=True) as parquet:
                missing = set(MASKS.names) - set(parquet.schema_arrow.names)
                if missing:
                    raise InputError(
                        f"{part.uri} is not a part of masks: it lacks {sorted(missing)}; "
                        "give the folder that jobs/segment.py printed"
                    )
                return parquet.read(columns, use_threads=False)
        except pa.ArrowException as error:
            raise InputError(f"{part.uri} is damaged or not Parquet: {error}") from error
