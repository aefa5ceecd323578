"""How a plan is stored: one compact object with a row for each unit, created once.

A line with the format, a line with the SHA-256 of what follows, and Parquet. Parquet's own page
checksums would not do: they leave out headers and footer, and a flipped bit there can give another
plan. A million images are about 16 MB, mostly ETags. It is written and read by row groups, so that
not all of it is held twice as Python values.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import ForeignObjectError
from pipelines.label_rules import LabelRule
from pipelines.storage import ObjectRef
from pipelines.units import Unit

OBJECTS_PER_GROUP = 1 << 16

FIRST_LINE = b"fcn.plan 1"

SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("start", pa.int64()),
        ("stop", pa.int64()),
        ("key", pa.list_(pa.string())),
        ("uri", pa.list_(pa.string())),
        ("etag", pa.list_(pa.string())),
        ("size", pa.list_(pa.int64())),
        ("planes", pa.list_(pa.string())),
        ("rules", pa.string()),
    ]
)
"""A unit. ``uri``, ``etag`` and ``size`` are those of its objects, followed by those of each of its
``planes`` in turn; ``rules`` is JSON."""

_ENCODINGS = {
    "key.list.element": "DELTA_BYTE_ARRAY",  # neighbours share their beginning
    "uri.list.element": "DELTA_BYTE_ARRAY",
    "etag.list.element": "DELTA_LENGTH_BYTE_ARRAY",
    "size.list.element": "DELTA_BINARY_PACKED",
}

Pinned = Callable[[str, str, int], ObjectRef]
"""The object of a URI, ETag and size: a new value, or the equal one that somebody has already."""


def encode(units: Iterable[Unit]) -> bytes:
    """The units, which have no labels, as one object in their order. Equal units, equal bytes."""
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink,
        SCHEMA,
        compression="zstd",
        use_dictionary=["kind", "rules"],
        column_encoding=_ENCODINGS,
        write_statistics=False,
    ) as writer:
        for group in _groups(units):
            writer.write_table(pa.Table.from_pylist([_row(unit) for unit in group], schema=SCHEMA))
    body = sink.getvalue()
    return b"\n".join([FIRST_LINE, hashlib.sha256(body).hexdigest().encode(), body])


def decode(data: bytes, uri: str, pinned: Pinned = ObjectRef) -> Iterator[Unit]:
    """The units that `encode` stored; ``uri`` is named in errors.

    Raises ForeignObjectError if the bytes are damaged, or no plan.
    """
    start = len(FIRST_LINE) + 1 + 64 + 1
    head, body = data[:start], memoryview(data)[start:]
    wanted = b"\n".join([FIRST_LINE, hashlib.sha256(body).hexdigest().encode(), b""])
    if head != wanted:
        raise ForeignObjectError(
            f"{uri} is damaged, or not a plan that this version wrote: it begins with "
            f"{bytes(head[:40])!r}…, wanted is {wanted[:40]!r}…. Without it nobody knows which "
            "input forms which unit: put its copy back, or use another --output"
        )
    file = pq.ParquetFile(pa.BufferReader(body))
    for number in range(file.num_row_groups):
        yield from _units(file.read_row_group(number), pinned)


def _groups(units: Iterable[Unit]) -> Iterator[list[Unit]]:
    group: list[Unit] = []
    objects = 0
    for unit in units:
        group.append(unit)
        objects += len(unit.objects) * (1 + len(unit.planes))
        if objects >= OBJECTS_PER_GROUP:
            yield group
            group, objects = [], 0
    if group:
        yield group


def _row(unit: Unit) -> dict[str, Any]:
    assert not unit.labels, "a plan knows no labels"
    refs = [*unit.objects, *(ref for _, refs in unit.planes for ref in refs)]
    return {
        "kind": unit.kind,
        "start": unit.start,
        "stop": unit.stop,
        "key": unit.keys,
        "uri": [ref.uri for ref in refs],
        "etag": [ref.etag for ref in refs],
        "size": [ref.size for ref in refs],
        "planes": [name for name, _ in unit.planes],
        "rules": json.dumps([[name, rule.to_json()] for name, rule in unit.rules]),
    }


def _units(table: pa.Table, pinned: Pinned) -> Iterator[Unit]:
    columns = {name: table[name].combine_chunks() for name in SCHEMA.names}
    names = ("kind", "start", "stop", "planes", "rules")
    rows = zip(*(columns[name].to_pylist() for name in names), strict=True)
    keys, key_ends = _flat(columns["key"])
    lists = [_flat(columns[name])[0] for name in ("uri", "etag", "size")]
    _, ref_ends = _flat(columns["uri"])
    for row, (first, last), (start, stop) in zip(
        rows, pairwise(key_ends), pairwise(ref_ends), strict=True
    ):
        kind, begin, end, planes, rules = row
        refs = tuple(map(pinned, *(values[start:stop] for values in lists)))
        count = len(refs) // (1 + len(planes))
        yield Unit(
            kind=kind,
            objects=refs[:count],
            keys=tuple(keys[first:last]),
            start=begin,
            stop=end,
            planes=tuple(
                (name, refs[index * count : (index + 1) * count])
                for index, name in enumerate(planes, start=1)
            ),
            rules=tuple((name, LabelRule.from_json(rule)) for name, rule in json.loads(rules)),
        )


def _flat(column: pa.ListArray) -> tuple[list[Any], list[int]]:
    """All elements of all lists, and where each list begins, with the end of the last."""
    return column.flatten().to_pylist(), column.offsets.to_pylist()
