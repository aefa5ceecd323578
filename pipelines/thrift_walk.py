"""Thrift's compact protocol, as far as one must read it to know what a Parquet file claims.

Libraries build objects of hundreds of bytes from three bytes of a footer, believe a page that says
it unpacks to gigabytes, or end the process at a number that they do not know. Here structs are
walked, and the fields that were asked for are kept.
Source: thrift-compact-protocol.md in apache/thrift.
"""

from __future__ import annotations

from typing import Any

from pipelines.errors import ShardError

Wanted = dict[int, "tuple[int, int] | Wanted | None"]
"""Fields by number: None or (smallest, largest) for an integer, and what is wanted of a struct or
of every struct of a list."""

MAX_STRUCTS = 1_000_000
MAX_KEPT = 250_000
"""Structs in one walk, and those of them that something is wanted of. Of such a struct, which is a
column of a row group, libraries make up to 700 bytes."""

_MAX_DEPTH = 12
_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY = (1, 2), 3, (4, 5, 6), 7, 8
_SEQUENCES, _STRUCT = (9, 10), 12


def read_struct(
    data: memoryview | bytes, wanted: Wanted, position: int = 0
) -> tuple[dict[int, Any], int]:
    """The wanted fields of a struct by number, and where it ends.

    Raises ValueError for what is no struct, and for an integer outside its limits; ShardError for
    a struct with absurdly many inside.
    """
    walk = _Walk(data)
    try:
        return walk.struct(position, 0, wanted)
    except IndexError:
        raise ValueError(f"the header at byte {position} is cut off") from None


class _Walk:
    def __init__(self, data: memoryview | bytes) -> None:
        self.data = data
        self.structs = 0
        self.kept = 0

    def struct(self, position: int, depth: int, wanted: Wanted) -> tuple[dict[int, Any], int]:
        self._count(wanted)
        fields: dict[int, Any] = {}
        last = 0
        while (head := self.data[position]) != 0:
            position += 1
            if head >> 4:
                last += head >> 4
            else:
                last, position = self.integer(position)
            if head & 15 in _BOOLEANS:
                continue
            limit = wanted.get(last)
            inside = limit if isinstance(limit, dict) else {}
            value, position = self.value(position, head & 15, depth, inside)
            if last in wanted:
                fields[last] = value
                if isinstance(limit, tuple) and not _within(value, limit):
                    raise ValueError(f"a header has {value} in field {last}")
        return fields, position + 1

    def value(self, position: int, kind: int, depth: int, wanted: Wanted) -> tuple[Any, int]:
        if depth > _MAX_DEPTH:
            raise ValueError(f"the header at byte {position} has parts of parts of parts")
        if kind in _INTEGERS:
            return self.integer(position)
        if kind == _BINARY:
            length, position = self.varint(position)
            return None, position + length
        if kind == _STRUCT:
            return self.struct(position, depth + 1, wanted)
        if kind in _SEQUENCES:
            return self.sequence(position, depth + 1, wanted)
        if kind in {_BYTE, _DOUBLE}:
            return None, position + (1 if kind == _BYTE else 8)
        raise ValueError(f"the header at byte {position} has a field of type {kind}")

    def sequence(self, position: int, depth: int, wanted: Wanted) -> tuple[list[Any], int]:
        """The elements of a list of which something is wanted, and where it ends."""
        head, position = self.data[position], position + 1
        count = head >> 4
        if count == 15:
            count, position = self.varint(position)
        if head & 15 in _BOOLEANS:
            return [], position + count
        found = []
        for _ in range(count):
            value, position = self.value(position, head & 15, depth, wanted)
            if wanted:
                found.append(value)
        return found, position

    def integer(self, position: int) -> tuple[int, int]:
        value, position = self.varint(position)
        return (value >> 1) ^ -(value & 1), position

    def varint(self, position: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = self.data[position]
            position += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, position
            shift += 7
            if shift > 63:
                raise ValueError(f"the header at byte {position} has a number of over 64 bits")

    def _count(self, wanted: Wanted) -> None:
        self.structs += 1
        self.kept += bool(wanted)
        if self.structs > MAX_STRUCTS or self.kept > MAX_KEPT:
            raise ShardError(f"a header of it has {self.structs} parts and more")


def _within(value: Any, limits: tuple[int, int]) -> bool:
    return isinstance(value, int) and limits[0] <= value <= limits[1]
