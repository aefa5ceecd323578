"""An output of bulk segmentation, made part by part, without a network or a cluster."""

from __future__ import annotations

import io

from PIL import Image

from fcn_model import ClassList
from pipelines import storage
from pipelines.masks import head, parts, snapshots
from pipelines.masks.generation import PartName
from pipelines.masks.head import Head
from pipelines.masks.snapshot import Snapshot, SnapshotPart

G1 = "0123456789abcdef"
G2 = "fedcba9876543210"
CLASSES = ClassList(names=("road", "car", "sky"))


def name_of(unit: int, version: int = 1, retry: int = 0) -> PartName:
    return PartName(f"{unit:016x}", f"{version:016x}", retry)


def write_part(
    output: str, unit: int, version: int = 1, retry: int = 0, *, rows: int = 3, generation: str = G1
) -> SnapshotPart:
    """Write a unit's part, of which the last row is an error row unless it is a retry."""
    name = name_of(unit, version, retry)
    errors = [rows - 1] if retry == 0 else []
    identity = {
        "generation": generation,
        "unit": name.unit,
        "version": name.version,
        "input": f"raw:{unit}",
        "records": rows,
    }
    data = parts.encode_part(
        [_row(unit, version, record, record in errors) for record in range(rows)],
        identity,
        CLASSES,
    )
    uri = storage.join(output, "data", f"gen={generation}", name.file)
    assert parts.commit(uri, data, identity) == "committed"
    return snapshots.describe_part(uri)


def made_up(unit: int, version: int = 1, retry: int = 0, **fields: object) -> SnapshotPart:
    """What a snapshot would say of a part that does not exist."""
    base = {"etag": f"e{unit}", "size": 1000 + unit, "sha256": f"{unit:064x}", "rows": 128}
    return SnapshotPart(name=name_of(unit, version, retry), **base | fields)  # type: ignore[arg-type]


def publish(output: str, snapshot: Snapshot) -> None:
    to = Head(generation=snapshot.generation, sequence=snapshot.sequence)
    assert head.move(output, to, from_=head.read(output))


def _row(unit: int, version: int, record: int, error: bool) -> dict[str, object]:
    row = {
        "key": f"{unit}/{record}.jpg",
        "uri": f"s3://archive/{unit}/{record}.jpg",
        "etag": f"etag-{version}",
        "height": 2,
        "width": 3,
        "status": "ok",
        "error_kind": "",
        "error": "",
        "attempts": 1,
        "transient": False,
        "model": "m" * 64,
        "unit": f"{unit:016x}",
        "record": record,
    }
    if error:
        failed = {"status": "error", "error_kind": "store", "error": "reset", "transient": True}
        return row | failed | {"mask": None, "class_pixels": None}
    mask = {"bytes": _png(record % 3), "path": f"{record}.png"}
    return row | {"mask": mask, "class_pixels": [6 * (record % 3 == index) for index in range(3)]}


def _png(value: int) -> bytes:
    sink = io.BytesIO()
    Image.new("P", (3, 2), value).save(sink, "PNG")
    return sink.getvalue()
