"""The stages of bulk segmentation beside the network, each a function of a one-row Arrow table.

A stage never raises: what goes wrong with a record becomes its error row, what goes wrong with the
unit travels on as ``failed`` and is reported, uncommitted.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from fcn_model.classes import ClassList
from pipelines import images, storage
from pipelines.decoding import MEASURED
from pipelines.errors import ImageError, StoreError
from pipelines.masks import carry, parts
from pipelines.masks.generation import Generation, PartName, data_uri, part_name
from pipelines.segmentation.unit_row import TRANSIENT_KINDS, Item, UnitRow
from pipelines.segmentation.watchdog import renewed_limit
from pipelines.units import OnError, read_unit

DECODED_BYTES = 256 << 20
"""A unit travels decoded up to this size; its further images stay encoded until the network."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every stage must know. A value: no client, no handle, no secret."""

    checkpoint: str
    output: str
    generation: Generation
    classes: ClassList
    batch_pixels: int
    tile_pixels: int
    record_seconds: float
    actors_per_node: int
    planes: tuple[str, ...] = ()  # further inputs of the network, in its order


def fetch_and_decode(table: pa.Table, job: Job) -> pa.Table:
    """CPU task: read the unit's records and decode their images to RGB."""
    row = UnitRow.without_records(table)
    run_stage(row, "decode", lambda: _read(row, job))
    return row.to_table()


def _read(row: UnitRow, job: Job) -> None:
    size = 0
    items = read_items(row, job)
    with renewed_limit(job.record_seconds) as begin:
        for item in items:
            if item.form == "encoded":
                begin()
                size += decoded_bytes(item)
                if size <= DECODED_BYTES:
                    item = decoded(item, job)  # noqa: PLW2901
            row.items.append(item)


def read_items(row: UnitRow, job: Job) -> list[Item]:
    """The unit's records as encoded items, or error rows for those that cannot be fetched.

    Those whose row in the unit's earlier part still holds are not fetched.
    """
    unit = row.planned
    kept = set(_holding(row, job))
    items: dict[int, Item] = {
        index: Item(unit.keys[index], unit.objects[index].uri, unit.objects[index].etag, "kept")
        for index in kept
    }
    if kept:
        left = [index for index in range(len(unit.objects)) if index not in kept]
        unit = unit.only(left)
    else:
        left = None
    on_error: OnError = "record-all" if row.last_try else "record"
    records = read_unit(unit, on_error=on_error, planes=job.planes) if unit.objects else []
    for index, record in zip(left or range(len(records)), records, strict=True):
        planes = tuple(record.planes.get(name, b"") for name in job.planes)
        item = Item(record.key, record.uri, record.etag, "encoded", record.image, planes)
        if record.error is not None:
            # A row of an image that is gone could not be made again.
            gone = row.was and record.error[0] == "missing"
            item = replace(item, form="kept") if gone else item.failed(*record.error)
        items[index] = item
    return [items[index] for index in sorted(items)]


def _holding(row: UnitRow, job: Job) -> list[int]:
    """The records whose rows in the unit's earlier part need not be made again."""
    name = PartName.parse(row.was) if row.was else None
    if name is None:
        return []
    return carry.holding(row.planned, carry.row_states(job.output, job.generation, name))


def decoded_bytes(item: Item) -> int:
    """What an encoded item's RGB will take in memory, as its header says; 0 if it is unreadable."""
    try:
        height, width = images.probe(bytes(item.data))
    except ImageError:
        return 0
    return height * width * 3


def decoded(item: Item, job: Job) -> Item:
    """An encoded item as RGB, its planes as their pixels' bytes; or as an error row."""
    try:
        image = images.decode_image(bytes(item.data), max_pixels=job.generation.max_pixels)
    except ImageError as error:
        return item.failed(error.kind, str(error))
    height, width = image.shape[:2]
    planes = []
    for name, data in zip(job.planes, item.planes, strict=True):
        try:
            plane = MEASURED[name](bytes(data))
        except ImageError as error:
            return item.failed(error.kind, f"its {name}: {error}")
        if plane.shape[:2] != (height, width):
            found = f"{plane.shape[0]}x{plane.shape[1]}"
            text = f"its {name} is {found} pixels (height x width), the image {height}x{width}"
            return item.failed("plane_size", text)
        planes.append(plane.tobytes())
    rgb = image.tobytes()
    return replace(item, form="rgb", data=rgb, planes=tuple(planes), height=height, width=width)


def encode_and_commit(table: pa.Table, job: Job) -> pa.Table:
    """CPU task: encode the masks, write the unit's part, and return a receipt."""
    receipt = commit(UnitRow.from_table(table), job)
    return pa.table({"receipt": [json.dumps(receipt)]})


def commit(row: UnitRow, job: Job) -> dict[str, Any]:
    """Write the unit's part, if its records are all there, and say what became of it."""
    unit = row.planned
    name = part_of(row)
    identity = parts.part_identity(job.generation, name, unit.identity, len(row.items))
    receipt: dict[str, Any] = {"outcome": "failed", "bytes": 0}

    def work() -> None:
        if unit.records is not None and unit.records != len(row.items):
            raise RuntimeError(f"{unit.records} records went in, {len(row.items)} came out")
        rows = _kept_rows(row, job)
        for index, item in enumerate(row.items):
            if item.form != "kept":
                rows[index] = mask_row(item, job, name, index)
        ordered = [rows[index] for index in range(len(row.items))]
        data = parts.encode_part(ordered, identity, job.classes)
        uri = storage.join(data_uri(job.output, job.generation), name.file)
        receipt.update(
            outcome=parts.commit(uri, data, identity),
            bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            stats=asdict(parts.Stats.of(ordered, len(job.classes))),
        )

    run_stage(row, "commit", work)
    return receipt | {
        "part": name.file,
        "input": unit.identity,
        "failed": row.failed,
        "transient": row.transient,
        "seconds": row.seconds,
    }


def _kept_rows(row: UnitRow, job: Job) -> dict[int, dict[str, Any]]:
    """The rows that the unit's earlier part has for the items that are kept."""
    kept = [index for index, item in enumerate(row.items) if item.form == "kept"]
    name = PartName.parse(row.was) if kept else None
    return {} if name is None else carry.rows_at(job.output, job.generation, name, kept)


def part_of(row: UnitRow) -> PartName:
    """The part that the unit is to become."""
    return replace(part_name(row.planned), retry=row.retry)


def mask_row(item: Item, job: Job, name: PartName, record: int) -> dict[str, Any]:
    """A record as a row of the MASKS schema."""
    row = {
        "key": item.key,
        "uri": item.uri,
        "etag": item.etag,
        "height": item.height,
        "width": item.width,
        "mask": None,
        "class_pixels": None,
        "status": "error",
        "error_kind": item.kind,
        "error": item.error,
        "attempts": item.attempts,
        "transient": item.kind in TRANSIENT_KINDS,
        "model": job.generation.model,
        "unit": name.unit,
        "record": record,
    }
    if item.form == "error":
        return row
    if item.form == "mask":
        item = encoded(item, job.classes)
    assert item.form == "png", f"record {item.key} reached the commit as {item.form}"
    return row | {
        "mask": {"bytes": bytes(item.data), "path": f"{item.key}.png"},
        "class_pixels": list(item.counts),
        "status": "ok",
    }


def encoded(item: Item, classes: ClassList) -> Item:
    """A mask as a palette PNG with its pixels counted."""
    mask = np.frombuffer(item.data, np.uint8).reshape(item.height, item.width)
    counts = class_pixels(mask, len(classes))
    return replace(item, form="png", data=images.encode_mask(mask, classes), counts=counts)


def class_pixels(mask: NDArray[np.uint8], classes: int) -> list[int]:
    """How many pixels of a mask are of each class.

    By Pillow, which takes a third of numpy's time and no memory for each pixel.
    """
    return Image.fromarray(mask).histogram()[:classes]


def run_stage(row: UnitRow, name: str, work: Callable[[], None]) -> None:
    """Run a stage's work unless the unit has failed already, and note its time or its failure."""
    started = time.monotonic()
    if not row.failed:
        try:
            work()
        except Exception as error:  # noqa: BLE001  (a unit that fails must not end the night)
            row.failed = f"{name}: {type(error).__name__}: {error}"[:1000]
            row.transient = isinstance(error, StoreError) and error.transient
    if row.failed:
        row.items = []
    row.seconds[name] = round(time.monotonic() - started, 4)
