"""Thrift's compact protocol, as far as one must read it to know what a Parquet file claims.

Libraries build objects of hundreds of bytes from three bytes of a footer, and believe a page that
says it unpacks to gigabytes. Here structs are walked and integers looked at; little is built.
Source: thrift-compact-protocol.md in apache/thrift.
"""

from __future__ import annotations

from typing import Any

from pipelines.errors import ShardError

MAX_STRUCTS = 500_000
"""In one walk; a library takes up to 700 bytes for each."""

_MAX_DEPTH = 12
_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY = (1, 2), 3, (4, 5, 6), 7, 8
_SEQUENCES, _STRUCT = (9, 10), 12


def read_struct(data: memoryview | bytes, position: int = 0) -> tuple[dict[int, Any], int]:
    """The integers and structs of a struct by field number, and where it ends.

    Everything else is passed over. Raises ShardError for what is no struct, or has too many inside.
    """
    walk = _Walk(data)
    try:
        return walk.struct(position, 0)
    except IndexError:
        raise ShardError(f"the header at byte {position} is cut off") from None


class _Walk:
    def __init__(self, data: memoryview | bytes) -> None:
        self.data = data
        self.structs = 0

    def struct(self, position: int, depth: int) -> tuple[dict[int, Any], int]:
        self.structs += 1
        if self.structs > MAX_STRUCTS or depth > _MAX_DEPTH:
            raise ShardError(f"a header has over {MAX_STRUCTS} parts, or parts of parts of parts")
        fields: dict[int, Any] = {}
        last = 0
        while (head := self.data[position]) != 0:
            position += 1
            if head >> 4:
                last += head >> 4
            else:
                last, position = self.integer(position)
            if head & 15 not in _BOOLEANS:
                value, position = self.value(position, head & 15, depth)
                if value is not None:
                    fields[last] = value
        return fields, position + 1

    def value(self, position: int, kind: int, depth: int) -> tuple[Any, int]:
        if kind in _INTEGERS:
            return self.integer(position)
        if kind == _BINARY:
            length, position = self.varint(position)
            return None, position + length
        if kind == _STRUCT:
            return self.struct(position, depth + 1)
        if kind in _SEQUENCES:
            return None, self.sequence(position, depth + 1)
        if kind in {_BYTE, _DOUBLE}:
            return None, position + (1 if kind == _BYTE else 8)
        raise ShardError(f"the header at byte {position} has a field of type {kind}")

    def sequence(self, position: int, depth: int) -> int:
        """Where a list ends."""
        head, position = self.data[position], position + 1
        count = head >> 4
        if count == 15:
            count, position = self.varint(position)
        if head & 15 in _BOOLEANS:
            return position + count
        if depth > _MAX_DEPTH:
            raise ShardError("a header has lists of lists of lists")
        for _ in range(count):
            _, position = self.value(position, head & 15, depth)
        return position

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
                raise ShardError(f"the header at byte {position} has a number of over 64 bits")
