"""The stages of bulk segmentation beside the network, each a function of a one-row Arrow table.

A row is a unit and carries all of its records in list columns, so that no split or merge of blocks
can cut a unit in two. A stage never raises: what goes wrong with a record becomes its error row,
what goes wrong with the unit travels on as ``failed`` and is reported, uncommitted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from fcn_model.classes import ClassList
from pipelines import images, storage
from pipelines.decoding import MEASURED
from pipelines.errors import ImageError
from pipelines.masks import parts
from pipelines.masks.generation import Generation, data_uri, part_name
from pipelines.units import Unit, read_unit

DECODED_BYTES = 256 << 20
"""A unit travels decoded up to this size; its further images stay encoded until the network."""

UNIT_ROW = pa.schema(
    [("meta", pa.string())]
    + [(name, pa.list_(pa.string())) for name in ("key", "uri", "etag", "form", "kind", "error")]
    + [(name, pa.list_(pa.int32())) for name in ("height", "width")]
    + [("data", pa.list_(pa.large_binary())), ("planes", pa.list_(pa.list_(pa.large_binary())))]
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every stage must know. A value: no client, no handle, no secret."""

    checkpoint: str
    output: str
    generation: Generation
    classes: ClassList
    batch_pixels: int
    actors_per_node: int
    planes: tuple[str, ...] = ()  # further inputs of the network, in its order


@dataclass(frozen=True)
class Item:
    """One record on its way: ``data`` and the network's further ``planes`` are as ``form`` says."""

    key: str
    uri: str
    etag: str
    form: Literal["encoded", "rgb", "mask", "error"]
    data: Any = b""
    planes: tuple[Any, ...] = ()
    height: int = 0
    width: int = 0
    kind: str = ""
    error: str = ""

    def failed(self, kind: str, text: str) -> Item:
        """The record as an error row."""
        nothing: dict[str, Any] = {"data": b"", "planes": (), "height": 0, "width": 0}
        return replace(self, form="error", kind=kind, error=text[:500], **nothing)


@dataclass
class UnitRow:
    """A unit and its records, as they pass from stage to stage."""

    unit: str
    failed: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)

    def to_table(self) -> pa.Table:
        """One row of `UNIT_ROW`."""
        meta = json.dumps({"unit": self.unit, "failed": self.failed, "seconds": self.seconds})
        columns = {
            name: [[getattr(item, name) for item in self.items]] for name in UNIT_ROW.names[1:]
        }
        return pa.table({"meta": [meta], **columns}, schema=UNIT_ROW)

    @classmethod
    def from_table(cls, table: pa.Table) -> UnitRow:
        """Read `to_table` back; ``data`` and ``planes`` are views into the table."""
        assert table.num_rows == 1, f"a unit row travels alone, got {table.num_rows} rows"
        meta = json.loads(table["meta"][0].as_py())
        texts = [table[name][0].as_py() for name in UNIT_ROW.names[1:-2]]
        data = [value.as_buffer() or b"" for value in table["data"][0]]
        planes = [tuple(one.as_buffer() for one in value) for value in table["planes"][0]]
        items = [
            Item(**dict(zip(UNIT_ROW.names[1:], values, strict=True)))
            for values in zip(*texts, data, planes, strict=True)
        ]
        return cls(meta["unit"], meta["failed"], meta["seconds"], items)


def new_row(unit: Unit) -> dict[str, Any]:
    """The dataset row that stands for a unit before anything was read."""
    return {"meta": json.dumps({"unit": unit.to_json(), "failed": "", "seconds": {}})}


def fetch_and_decode(table: pa.Table, job: Job) -> pa.Table:
    """CPU task: read the unit's records and decode their images to RGB."""
    meta = json.loads(table["meta"][0].as_py())
    row = UnitRow(meta["unit"])

    def work() -> None:
        size = 0
        unit = Unit.from_json(row.unit)
        for record in read_unit(unit, on_error="record", planes=job.planes):
            planes = tuple(record.planes.get(name, b"") for name in job.planes)
            item = Item(record.key, record.uri, record.etag, "encoded", record.image, planes)
            if record.error is not None:
                item = item.failed(*record.error)
            elif size < DECODED_BYTES:
                item = decoded(item, job)
                size += len(item.data) + sum(len(plane) for plane in item.planes)
            row.items.append(item)

    run_stage(row, "decode", work)
    return row.to_table()


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
    row = UnitRow.from_table(table)
    unit = Unit.from_json(row.unit)
    name = part_name(unit)
    identity = parts.part_identity(job.generation, name, unit.identity, len(row.items))
    receipt: dict[str, Any] = {"outcome": "failed"}

    def work() -> None:
        if unit.records is not None and unit.records != len(row.items):
            raise RuntimeError(f"{unit.records} records went in, {len(row.items)} came out")
        rows = [mask_row(item, job, name.unit, index) for index, item in enumerate(row.items)]
        data = parts.encode_part(rows, identity, job.classes)
        uri = storage.join(data_uri(job.output, job.generation), name.file)
        receipt.update(outcome=parts.commit(uri, data, identity), bytes=len(data))

    run_stage(row, "commit", work)
    receipt.update(
        input=unit.identity,
        records=len(row.items),
        errors=sum(item.form == "error" for item in row.items),
        failed=row.failed,
        seconds=row.seconds,
    )
    return pa.table({"receipt": [json.dumps(receipt)]})


def mask_row(item: Item, job: Job, unit: str, record: int) -> dict[str, Any]:
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
        "model": job.generation.model,
        "unit": unit,
        "record": record,
    }
    if item.form == "error":
        return row
    assert item.form == "mask", f"record {item.key} reached the commit as {item.form}"
    mask = np.frombuffer(item.data, np.uint8).reshape(item.height, item.width)
    return row | {
        "mask": {"bytes": images.encode_mask(mask, job.classes), "path": f"{item.key}.png"},
        "class_pixels": np.bincount(mask.ravel(), minlength=len(job.classes)).tolist(),
        "status": "ok",
    }


def run_stage(row: UnitRow, name: str, work: Callable[[], None]) -> None:
    """Run a stage's work unless the unit has failed already, and note its time or its failure."""
    started = time.monotonic()
    if not row.failed:
        try:
            work()
        except Exception as error:  # noqa: BLE001  (a unit that fails must not end the night)
            row.failed = f"{name}: {type(error).__name__}: {error}"[:1000]
    if row.failed:
        row.items = []
    row.seconds[name] = round(time.monotonic() - started, 4)
