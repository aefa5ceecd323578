"""How much a column chunk of Parquet can unpack to, from the headers of its pages.

A footer's sizes are claims. A page of a kilobyte may unpack to gigabytes, and a dictionary of one
long value be named a million times; a library allocates first and fails later. The headers tell
what each page takes, and they must agree with the footer about the values.
Format: parquet.thrift in apache/parquet-format, PageHeader.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import ShardError
from pipelines.thrift_walk import read_struct

MAX_DICTIONARY_BYTES = 64 << 20

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_VALUE_BYTES = 16
"""What a value takes in memory at the most beside its own bytes: offset, length, validity."""

_PLAIN, _RLE, _DELTA, _DELTA_LENGTHS, _DELTA_TEXTS, _SPLIT = 0, 3, 5, 6, 7, 9
_NAMED = (2, 8)  # a place in the dictionary


def unpacked_bytes(chunk: memoryview, column: pq.ColumnChunkMetaData) -> int:
    """The most that a chunk's values can take in memory.

    ``chunk`` is what lies in the file. Raises ShardError if its pages are cut off, disagree with
    the footer, or are of a kind that is not known.
    """
    position, values, total, longest = 0, 0, 0, 0
    while position < len(chunk):
        header, position = read_struct(chunk, position)
        kind, unpacked, packed = (_integer(header, field) for field in (1, 2, 3))
        end = position + packed
        if min(unpacked, packed) < 0 or end > len(chunk):
            raise ShardError(f"a page at byte {position} of its column is cut off")
        if column.compression == "UNCOMPRESSED" and unpacked != packed:
            raise ShardError(f"a page at byte {position} of its column has two sizes")
        if kind == _DICTIONARY:
            longest = _longest(chunk[position:end], unpacked, column)
            total += unpacked
        elif kind in {_DATA, _DATA_V2}:
            described = header.get(5 if kind == _DATA else 8)
            if not isinstance(described, dict):
                raise ShardError(f"a page at byte {position} of its column describes no values")
            count, encoding = _integer(described, 1), _integer(described, 2 if kind == _DATA else 4)
            values += count
            if count < 0 or values > column.num_values:
                break
            total += _most(encoding, count, unpacked, longest)
        position = end
    if values != column.num_values:
        raise ShardError(f"its pages hold {values} values, the footer claims {column.num_values}")
    return total


def _most(encoding: int, count: int, unpacked: int, longest: int) -> int:
    """What a page's values can take, by how they are encoded."""
    if encoding in _NAMED:
        return unpacked + count * (longest + _VALUE_BYTES)
    if encoding in {_PLAIN, _RLE, _DELTA, _DELTA_LENGTHS, _SPLIT}:
        return unpacked + count * _VALUE_BYTES
    if encoding == _DELTA_TEXTS:  # each may repeat all of the one before it
        return unpacked + count * (unpacked + _VALUE_BYTES)
    raise ShardError(f"a page has encoding {encoding}, which is not known")


def _longest(page: memoryview | bytes, unpacked: int, column: pq.ColumnChunkMetaData) -> int:
    """The size of a dictionary's longest value."""
    if unpacked > MAX_DICTIONARY_BYTES:
        raise ShardError(f"a dictionary of {unpacked} bytes; at most {MAX_DICTIONARY_BYTES}")
    if column.physical_type != "BYTE_ARRAY":
        return unpacked
    if column.compression != "UNCOMPRESSED":
        codec = pa.Codec(column.compression.lower())
        page = codec.decompress(page, unpacked, asbytes=True)
    position, longest = 0, 0
    while position + 4 <= len(page):
        length = int.from_bytes(page[position : position + 4], "little")
        longest = max(longest, length)
        position += 4 + length
    return longest


def _integer(fields: dict[int, Any], field: int) -> int:
    value = fields.get(field)
    if not isinstance(value, int):
        raise ShardError(f"a page's header has no field {field}")
    return value
