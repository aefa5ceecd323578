"""Ranges of our Parquet shards to records; only the row groups that hold them are fetched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fcn_model.classes import ClassList
from fcn_model.errors import FCNError
from pipelines import storage
from pipelines.errors import ShardError
from pipelines.records import LABEL, Record
from pipelines.schemas import IMAGE, PLANES, SHARD, classes_of, tasks_of
from pipelines.storage import ObjectRef

MAX_ROW_GROUP_BYTES = 2 << 30


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
    with _opened(ref) as file:
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
    return _read_range(ref, start, stop, ["key"])["key"].to_pylist()


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
    with _opened(ref) as file:
        footer = _footer(ref, file)
        total = sum(footer.group_rows)
        stop = total if stop is None else stop
        if not 0 <= start <= stop <= total:
            raise ShardError(f"{ref.uri}: rows {start} to {stop} are wanted, it has {total}")
        absent = [name for name in columns if name not in file.schema_arrow.names]
        if absent and not optional:
            raise ShardError(f"{ref.uri}: there is no column {absent[0]!r}, which is wanted")
        columns = [name for name in columns if name not in absent]
        groups, first = _groups(footer.group_rows, start, stop)
        if any(footer.group_bytes[group] > MAX_ROW_GROUP_BYTES for group in groups):
            raise ShardError(f"{ref.uri}: a row group is over {MAX_ROW_GROUP_BYTES} bytes")
        table = file.read_row_groups(groups, columns=columns, use_threads=False)
    return table.slice(start - first, stop - start)


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


def _footer(ref: ObjectRef, file: pq.ParquetFile) -> Footer:
    schema = file.schema_arrow
    missing = [field.name for field in SHARD if field.name not in schema.names]
    if missing:
        raise ShardError(
            f"{ref.uri}: columns {missing} are missing (it has {schema.names}); "
            "make shards from other data with jobs/prepare.py"
        )
    planes = tuple(name for name in PLANES if name in schema.names)
    for field in (*SHARD, *(pa.field(name, IMAGE) for name in planes)):
        if schema.field(field.name).type != field.type:
            found = schema.field(field.name).type
            raise ShardError(f"{ref.uri}: column {field.name!r} is {found}, wanted {field.type}")
    groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
    stored = schema.metadata or {}
    return Footer(
        group_rows=tuple(group.num_rows for group in groups),
        group_bytes=tuple(group.total_byte_size for group in groups),
        classes=classes_of(schema),
        metadata={key.decode(): value.decode(errors="replace") for key, value in stored.items()},
        tasks=tasks_of(schema),
        planes=planes,
    )


@contextmanager
def _opened(ref: ObjectRef) -> Iterator[pq.ParquetFile]:
    """The shard opened; what Arrow raises about its bytes becomes ShardError."""
    with storage.open_ranged(ref) as source:
        try:
            with pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=True) as file:
                yield file
        except FCNError:
            raise  # the store's own errors pass through Arrow unchanged
        except (pa.ArrowException, OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ShardError(f"{ref.uri}: the Parquet file is damaged: {reason}") from error
