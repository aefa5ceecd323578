"""How much a column chunk of Parquet can unpack to, from the headers of its pages.

A footer's sizes are claims. A page of a kilobyte may unpack to gigabytes, and a dictionary of one
long value be named a million times; a library allocates first and fails later. The headers tell
what each page takes, and they must agree with the footer about the values.
Format: parquet.thrift in apache/parquet-format.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.errors import ShardError
from pipelines.thrift_walk import Wanted, read_struct

MAX_DICTIONARY_BYTES = 64 << 20

_HEADER: Wanted = {1: (0, 3), 2: None, 3: None, 5: {1: None, 2: None}, 8: {1: None, 4: None}}
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_UNCOMPRESSED, _TEXTS = 0, 6
_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}
_VALUE_BYTES = 16
"""What a value takes in memory at the most beside its own bytes: offset, length, validity."""

_PLAIN, _RLE, _DELTA, _DELTA_LENGTHS, _DELTA_TEXTS, _SPLIT = 0, 3, 5, 6, 7, 9
_NAMED = (2, 8)  # a place in the dictionary


@dataclass(frozen=True)
class Chunk:
    """A column of a row group as the footer has it: physical type, codec, and place in the file."""

    path: str
    kind: int
    codec: int
    values: int
    start: int
    end: int


def unpacked_bytes(data: memoryview, chunk: Chunk) -> int:
    """The most that a chunk's values can take in memory.

    ``data`` is what lies in the file. Raises ValueError if its pages are cut off, disagree with the
    footer, or are of a kind that is not known; ShardError for a huge dictionary.
    """
    position, values, total, longest = 0, 0, 0, 0
    while position < len(data):
        header, position = read_struct(data, _HEADER, position)
        kind, unpacked, packed = (_integer(header, field) for field in (1, 2, 3))
        end = position + packed
        if min(unpacked, packed) < 0 or end > len(data):
            raise ValueError(f"a page of column {chunk.path} is cut off")
        if chunk.codec == _UNCOMPRESSED and unpacked != packed:
            raise ValueError(f"a page of column {chunk.path} has two sizes")
        if kind == _DICTIONARY:
            longest = _longest(data[position:end], unpacked, chunk)
            total += unpacked
        elif kind in {_DATA, _DATA_V2}:
            count, most = _page(header, unpacked, longest)
            values, total = values + count, total + most
        if values > chunk.values:
            break
        position = end
    if values != chunk.values:
        raise ValueError(f"column {chunk.path} is claimed to have {chunk.values} values")
    return total


def _page(header: dict[int, Any], unpacked: int, longest: int) -> tuple[int, int]:
    """How many values a page has, and how much they can take, by how they are encoded."""
    described, field = (header.get(5), 2) if header[1] == _DATA else (header.get(8), 4)
    count, encoding = _integer(described, 1), _integer(described, field)
    if count < 0:
        raise ValueError(f"a page has {count} values")
    if encoding in _NAMED:
        return count, unpacked + count * (longest + _VALUE_BYTES)
    if encoding in {_PLAIN, _RLE, _DELTA, _DELTA_LENGTHS, _SPLIT}:
        return count, unpacked + count * _VALUE_BYTES
    if encoding == _DELTA_TEXTS:  # each may repeat all of the one before it
        return count, unpacked + count * (unpacked + _VALUE_BYTES)
    raise ValueError(f"a page has encoding {encoding}, which is not known")


def _longest(page: memoryview, unpacked: int, chunk: Chunk) -> int:
    """The size of a dictionary's longest value."""
    if unpacked > MAX_DICTIONARY_BYTES:
        raise ShardError(f"a dictionary of it has {unpacked} bytes; at most {MAX_DICTIONARY_BYTES}")
    if chunk.kind != _TEXTS:
        return unpacked
    if chunk.codec != _UNCOMPRESSED:
        if chunk.codec not in _CODECS:
            raise ValueError(f"column {chunk.path} has compression {chunk.codec}, not read here")
        page = memoryview(pa.Codec(_CODECS[chunk.codec]).decompress(page, unpacked))
    position, longest = 0, 0
    while position + 4 <= len(page):
        length = int.from_bytes(page[position : position + 4], "little")
        longest = max(longest, length)
        position += 4 + length
    return longest


def _integer(fields: dict[int, Any] | None, field: int) -> int:
    value = (fields or {}).get(field)
    if not isinstance(value, int):
        raise ValueError(f"a page's header has no number in field {field}")  # noqa: TRY004
    return value
