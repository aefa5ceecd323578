"""Parquet shards: how they are planned and how records become one."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from fcn_model.classes import ClassList
from pipelines import images
from pipelines.cutting import cut_files
from pipelines.errors import ImageError
from pipelines.records import Record
from pipelines.schemas import IMAGE, PLANES, SHARD, with_metadata
from pipelines.sources import Source
from pipelines.suffixes import is_image_name
from pipelines.units import Unit

ROWS_PER_GROUP = 16
"""Small enough that a range of a shard can be fetched alone, large enough for few requests."""

FORMAT = 1
"""Raised by hand when the same input makes other shards than before."""


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be made: its file name and the unit that goes into it."""

    name: str
    unit: Unit

    def fingerprint(
        self, classes: ClassList | None, tasks: Mapping[str, ClassList] | None = None
    ) -> str:
        """A digest of everything that the shard's content follows from."""
        what = [FORMAT, self.unit.identity, self.unit.version, classes and classes.to_dict()]
        if tasks:
            what.append({name: task.to_dict() for name, task in tasks.items()})
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def plan_shards(source: Source, shard_bytes: int, shard_records: int) -> tuple[ShardPlan, ...]:
    """Which shards a source is made into: consecutive image files up to both limits.

    A unit of a tar or Parquet source becomes one shard as it is. The plan follows from the source
    alone, so that doing it again makes the same names.
    """
    units = list(source.units)
    if all(unit.kind == "raw" for unit in units):
        units = _regroup(units, shard_bytes, shard_records)
    return tuple(
        ShardPlan(f"part-{index:05d}-of-{len(units):05d}.parquet", unit)
        for index, unit in enumerate(units)
    )


def write_shard(
    records: Sequence[Record],
    classes: ClassList | None,
    *,
    tasks: Mapping[str, ClassList] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """The records as one Parquet file of schema SHARD, in their order, with page checksums.

    The files are stored as they are, neither decoded nor compressed again; labels are PNGs of ids.
    Planes that any record has get columns. An image of which the header cannot be read gets height
    and width 0.
    """
    schema = SHARD
    for name in PLANES:
        if any(name in record.planes for record in records):
            schema = schema.append(pa.field(name, IMAGE))
    table = pa.Table.from_pylist(
        [_row(record) for record in records],
        schema=with_metadata(schema, classes=classes, tasks=tasks, extra=metadata),
    )
    file = io.BytesIO()
    pq.write_table(
        table,
        file,
        row_group_size=ROWS_PER_GROUP,
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
    )
    return file.getvalue()


def _row(record: Record) -> dict[str, object]:
    try:
        height, width = images.probe(record.image)
    except ImageError:
        height, width = 0, 0
    name, label_name = _file_names(record)
    return {
        "key": record.key,
        "uri": record.uri,
        "etag": record.etag,
        "height": height,
        "width": width,
        "image": {"bytes": record.image, "path": name},
        "label": None if record.label is None else {"bytes": record.label, "path": label_name},
        **{name: {"bytes": data, "path": label_name} for name, data in record.planes.items()},
    }


def _file_names(record: Record) -> tuple[str, str]:
    """File names of image and label for readers that show them."""
    stem = record.key.rpartition("/")[2]
    name = record.uri.rpartition("/")[2]
    return (name if is_image_name(name) else stem), f"{stem}.png"


def _regroup(units: Sequence[Unit], shard_bytes: int, shard_records: int) -> list[Unit]:
    keys = [key for unit in units for key in unit.keys]
    objects = [ref for unit in units for ref in unit.objects]
    labels = [label for unit in units for label in unit.labels]
    planes = {
        name: [ref for unit in units for ref in dict(unit.planes)[name]]
        for name, _ in (units[0].planes if units else ())
    }
    sizes = [sum(ref.size for ref in refs) for refs in zip(objects, *planes.values(), strict=True)]
    return [
        Unit(
            "raw",
            objects=tuple(objects[start:stop]),
            keys=tuple(keys[start:stop]),
            labels=tuple(labels[start:stop]),
            planes=tuple((name, tuple(refs[start:stop])) for name, refs in planes.items()),
            rules=units[0].rules,
        )
        for start, stop in cut_files(sizes, shard_records, shard_bytes)
    ]
