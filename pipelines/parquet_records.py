"""Ranges of our Parquet shards to records; only the row groups that hold them are fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from fcn_model.classes import ClassList
from fcn_model.errors import FCNError
from pipelines.errors import ShardError
from pipelines.parquet_file import ParquetFile, open_parquet
from pipelines.records import LABEL, Record
from pipelines.schemas import IMAGE, PLANES, SHARD, classes_of, tasks_of
from pipelines.storage import ObjectRef

_NEVER_NULL = ("key", "uri", "etag")


@dataclass(frozen=True)
class Footer:
    """A shard's footer: rows and uncompressed bytes of each row group, classes, text metadata.

    ``tasks`` are the class lists of further labels, ``planes`` the further columns that it has.
    """

    group_rows: tuple[int, ...]
    group_bytes: tuple[int, ...]
    classes: ClassList | None
    metadata: dict[str, str]
    tasks: dict[str, ClassList]
    planes: tuple[str, ...]


def read_footer(ref: ObjectRef) -> Footer:
    """The footer of a shard. Raises ShardError if it is damaged or columns are missing."""
    with open_parquet(ref) as file:
        return _footer(ref, file)


def read_rows(
    ref: ObjectRef,
    start: int = 0,
    stop: int | None = None,
    planes: Sequence[str] | None = (),
) -> list[Record]:
    """The records of rows ``start`` .. ``stop`` - 1 in row order, with some planes or (None) all.

    Page checksums are verified where the writer stored them, as ours does. Raises ShardError for
    damage, missing columns and rows beyond the end; ChangedError if the object was overwritten.
    """
    columns = ["key", "uri", "etag", "image", "label", *(PLANES if planes is None else planes)]
    table = _read_range(ref, start, stop, columns, optional=planes is None)
    return [
        Record(
            key=row["key"],
            uri=row["uri"],
            etag=row["etag"],
            image=_bytes(row["image"]) or b"",
            label=_bytes(row["label"]),
            planes={
                name: data
                for name in table.column_names[5:]
                if (data := _bytes(row[name])) is not None
            },
        )
        for row in table.to_pylist()
    ]


def _bytes(value: dict[str, Any] | None) -> bytes | None:
    return (value or {}).get("bytes")


def read_keys(ref: ObjectRef, start: int = 0, stop: int | None = None) -> list[str]:
    """The keys of rows ``start`` .. ``stop`` - 1, fetching nothing else. Raises as `read_rows`."""
    return read_texts(ref, "key", start, stop)


def read_texts(ref: ObjectRef, column: str, start: int = 0, stop: int | None = None) -> list[str]:
    """One column of texts of some rows, fetching nothing else. Raises as `read_rows`."""
    return _read_range(ref, start, stop, [column])[column].to_pylist()


def read_label_rows(
    ref: ObjectRef, start: int = 0, stop: int | None = None, column: str = LABEL
) -> list[tuple[str, bytes | None]]:
    """The image URI and the label of each row, without its image. Raises as `read_rows`."""
    rows = _read_range(ref, start, stop, ["uri", column]).to_pylist()
    return [(row["uri"], _bytes(row[column])) for row in rows]


def _read_range(
    ref: ObjectRef, start: int, stop: int | None, columns: list[str], *, optional: bool = False
) -> pa.Table:
    """Some columns of some rows; with ``optional``, those of the columns that there are."""
    with open_parquet(ref) as file:
        footer = _footer(ref, file)
        total = sum(footer.group_rows)
        stop = total if stop is None else stop
        if not 0 <= start <= stop <= total:
            raise ShardError(f"{ref.uri}: rows {start} to {stop} are wanted, it has {total}")
        absent = [name for name in columns if name not in file.schema.names]
        if absent and not optional:
            raise ShardError(f"{ref.uri}: there is no column {absent[0]!r}, which is wanted")
        columns = [name for name in columns if name not in absent]
        groups, first = _groups(footer.group_rows, start, stop)
        table = file.read(groups, columns).slice(start - first, stop - start)
    for name in columns:
        if name in _NEVER_NULL and table[name].null_count:
            row = start + table[name].is_null().to_pylist().index(True)
            raise ShardError(f"{ref.uri}: row {row} has no {name}")
    return table


def _groups(group_rows: tuple[int, ...], start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold rows start .. stop - 1, and the first row of the first of them."""
    groups: list[int] = []
    first, row = 0, 0
    for group, rows in enumerate(group_rows):
        if row < stop and row + rows > start:
            first = first if groups else row
            groups.append(group)
        row += rows
    return groups, first if groups else start


def _footer(ref: ObjectRef, file: ParquetFile) -> Footer:
    schema = file.schema
    missing = [field.name for field in SHARD if field.name not in schema.names]
    if missing:
        raise ShardError(
            f"{ref.uri}: columns {missing} are missing (it has {schema.names}); "
            "make shards from other data with jobs/prepare.py"
        )
    planes = tuple(name for name in PLANES if name in schema.names)
    for field in (*SHARD, *(pa.field(name, IMAGE) for name in planes)):
        found = [other.type for other in schema if other.name == field.name]
        if found != [field.type]:
            named = " and ".join(map(str, found))
            raise ShardError(f"{ref.uri}: column {field.name!r} is {named}, wanted {field.type}")
    stored = schema.metadata or {}
    try:
        classes, tasks = classes_of(schema), tasks_of(schema)
    except (FCNError, ValueError, AttributeError, TypeError) as error:
        raise ShardError(f"{ref.uri}: its class list is damaged: {error}") from error
    return Footer(
        group_rows=file.group_rows,
        group_bytes=file.group_bytes,
        classes=classes,
        metadata={key.decode(): value.decode(errors="replace") for key, value in stored.items()},
        tasks=tasks,
        planes=planes,
    )
