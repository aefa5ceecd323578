"""A Parquet file of unknown origin, opened so that it takes no more memory than it has a right to.

Its footer is looked at before a library builds objects from it, and the pages of the wanted columns
before a library unpacks them; the library sees nothing of the file but those.
"""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from fcn_model.errors import FCNError
from pipelines import storage
from pipelines.errors import ShardError
from pipelines.parquet_pages import Chunk, unpacked_bytes
from pipelines.storage import ObjectRef
from pipelines.thrift_walk import Wanted, read_struct

MAX_READ_BYTES = 2 << 30
"""Of what one reading fetches, and of what that unpacks to."""
MAX_GROUP_ROWS = 1 << 20
MAX_FOOTER_BYTES = 64 << 20

_MAGIC = b"PAR1"
_TAIL_SHARE, _TAIL_BYTES = 128, (8 << 10, 64 << 10)
"""What is fetched first: so much of a file, within bounds. Where images have 20 kB, our footers are
a two-hundredth of it, and less where they have more."""
_COLUMN: Wanted = {1: (0, 7), 4: (0, 7), 5: None, 7: None, 9: None, 11: None}
_FOOTER: Wanted = {3: None, 4: {1: {3: _COLUMN}, 2: None, 3: None}}
"""Of the columns: physical type, codec, values, bytes, and where pages and dictionary start; of the
row groups: columns, bytes and rows. Asked for these, pyarrow ends the process where they are
damaged."""
_GAP_BYTES = 64 << 10
"""Ranges this close together are fetched in one request."""


class ParquetFile:
    """An opened file: its ``schema``, and the rows and bytes that its row groups claim."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._size = source.seek(0, io.SEEK_END)
        least, most = _TAIL_BYTES
        tail = min(most, max(least, self._size // _TAIL_SHARE))
        self._tail = self._fetched(max(0, self._size - tail), self._size)
        footer = self._read_footer()
        self._footer_start = self._size - len(footer)
        claims, _ = read_struct(footer, _FOOTER)
        self._groups = _structs(claims, 4)
        self.group_rows = tuple(_integer(group, 3) for group in self._groups)
        self.group_bytes = tuple(_integer(group, 2) for group in self._groups)
        absurd = [rows for rows in self.group_rows if not 0 <= rows <= MAX_GROUP_ROWS]
        if absurd:
            raise ShardError(f"a row group claims {absurd[0]} rows; at most {MAX_GROUP_ROWS}")
        total = sum(self.group_rows)
        if total != _integer(claims, 3) or min(self.group_bytes, default=0) < 0:
            raise ValueError(f"its row groups have {total} rows, itself {_integer(claims, 3)}")
        with pq.ParquetFile(pa.BufferReader(_MAGIC + footer)) as file:
            self.metadata: pq.FileMetaData = file.metadata
            self.schema: pa.Schema = file.schema_arrow
        leaves = self.metadata.schema
        self._paths = [leaves.column(index).path for index in range(len(leaves))]
        if any(len(_structs(group, 1)) != len(leaves) for group in self._groups):
            raise ValueError(f"a row group has other columns than the {len(leaves)} of the schema")

    def read(self, groups: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Some columns of some row groups, checksums verified where there are any.

        Raises ShardError if more than `MAX_READ_BYTES` would be needed.
        """
        chunks = [chunk for group in groups for chunk in self._chunks(group, columns)]
        if sum(chunk.end - chunk.start for chunk in chunks) > MAX_READ_BYTES:
            raise ShardError(f"over {MAX_READ_BYTES} bytes are wanted of it at once")
        pieces = _Pieces(self._size)
        for start, end in _merged((chunk.start, chunk.end) for chunk in chunks):
            pieces.keep(start, self._read(start, end))
        unpacked = 0
        for chunk in chunks:
            unpacked += unpacked_bytes(pieces.between(chunk.start, chunk.end), chunk)
            if unpacked > MAX_READ_BYTES:
                raise ShardError(f"its rows would unpack to over {MAX_READ_BYTES} bytes")
        options = {"metadata": self.metadata, "pre_buffer": False}
        with pq.ParquetFile(pieces, page_checksum_verification=True, **options) as file:
            table = file.read_row_groups(list(groups), columns=list(columns), use_threads=False)
        table.validate(full=True)
        rows = sum(self.group_rows[group] for group in groups)
        if table.num_rows != rows:
            raise ValueError(f"{table.num_rows} rows came of {rows}")
        return table

    def _read_footer(self) -> bytes:
        """The footer with its length and the mark behind it, looked at."""
        length = int.from_bytes(self._tail[-8:-4], "little")
        start = self._size - 8 - length
        if self._tail[-4:] != _MAGIC or start < len(_MAGIC):
            raise ValueError("it does not end as a Parquet file does")
        if length > MAX_FOOTER_BYTES:
            raise ShardError(f"its footer has {length} bytes; make smaller shards")
        return self._read(start, self._size)

    def _chunks(self, group: int, names: Sequence[str]) -> Iterator[Chunk]:
        """The chunks that make up the named columns, which may be structs."""
        columns = _structs(self._groups[group], 1)
        for path, outer in zip(self._paths, columns, strict=True):
            if path.split(".")[0] not in names:
                continue
            column = outer.get(3) or {}
            kind, codec, values, packed, start = (_integer(column, n) for n in (1, 4, 5, 7, 9))
            start = min(start, column.get(11) or start)
            if not len(_MAGIC) <= start <= start + packed <= self._footer_start:
                raise ValueError(f"column {path} lies at byte {start} with {packed} bytes")
            if values != self.group_rows[group]:
                text = f"column {path} has {values} values for {self.group_rows[group]} rows"
                raise ValueError(text)
            yield Chunk(path, kind, codec, values, start, start + packed)

    def _read(self, start: int, end: int) -> bytes:
        """Bytes of the file, from what was fetched first if they are there."""
        place = start - (self._size - len(self._tail))
        return self._fetched(start, end) if place < 0 else self._tail[place : place + end - start]

    def _fetched(self, start: int, end: int) -> bytes:
        self._source.seek(start)
        data = self._source.read(end - start)
        if len(data) != end - start:
            raise ValueError(f"it ends at byte {start + len(data)}, {self._size} are listed")
        return data


class _Pieces(io.RawIOBase):
    """Parts of a file at their places, for Arrow to read as if they were the file."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size
        self._position = 0
        self._starts: list[int] = []
        self._data: list[bytes] = []

    def keep(self, start: int, data: bytes) -> None:
        """Remember the next part; parts come in order and do not overlap."""
        self._starts.append(start)
        self._data.append(data)

    def between(self, start: int, end: int) -> memoryview:
        """Bytes of one part, uncopied. Raises ShardError if they were not fetched."""
        place = bisect_right(self._starts, start) - 1
        if place < 0 or end > self._starts[place] + len(self._data[place]):
            raise ValueError(f"its bytes {start} to {end} are in no column")
        return memoryview(self._data[place])[
            start - self._starts[place] : end - self._starts[place]
        ]

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The offset of the next read in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the offset of the next read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """The next ``size`` bytes, all up to the end of the file if negative."""
        left = self._size - self._position
        count = left if size is None or size < 0 else min(size, left)
        data = bytes(self.between(self._position, self._position + count)) if count > 0 else b""
        self._position += len(data)
        return data


def _merged(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges of bytes in order, near neighbours as one."""
    first, last = -1, -1
    for start, end in sorted(ranges):
        if first >= 0 and start <= last + _GAP_BYTES:
            last = max(last, end)
            continue
        if first >= 0:
            yield first, last
        first, last = start, end
    if first >= 0:
        yield first, last


def _structs(fields: dict[int, Any], field: int) -> list[dict[int, Any]]:
    value = fields.get(field)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ValueError(f"its footer has no list in field {field}")
    return value


def _integer(fields: dict[int, Any], field: int) -> int:
    value = fields.get(field)
    if not isinstance(value, int):
        raise ValueError(f"its footer has no number in field {field}")  # noqa: TRY004
    return value


@contextmanager
def open_parquet(ref: ObjectRef) -> Iterator[ParquetFile]:
    """A Parquet object opened; what is wrong with its bytes becomes ShardError, naming it.

    Only for files without repeated columns among those that are read: a row is a value.
    """
    with storage.open_ranged(ref) as source:
        try:
            yield ParquetFile(source)
        except ShardError as error:
            if str(error).startswith(ref.uri):
                raise
            raise ShardError(f"{ref.uri}: {error}") from error
        except FCNError:
            raise  # the store's own errors pass through Arrow unchanged
        except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError) as error:
            reason = str(error).splitlines()[0] if str(error) else repr(error)
            raise ShardError(f"{ref.uri}: the Parquet file is damaged: {reason}") from error
