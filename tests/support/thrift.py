"""Thrift's compact protocol both ways, so that tests can rewrite what a Parquet file claims.

A struct is ``{field: (type, value)}``, a list ``(element type, [values])``; integers are Python's.
To be written, a struct may also be the bytes that it is encoded to.
"""

from __future__ import annotations

from typing import Any

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)


def decode(data: bytes, position: int = 0) -> tuple[dict[int, tuple[int, Any]], int]:
    """A struct, and where it ends."""
    fields: dict[int, tuple[int, Any]] = {}
    last = 0
    while (head := data[position]) != 0:
        position += 1
        if head >> 4:
            last += head >> 4
        else:
            last, position = _zigzag(data, position)
        kind = head & 15
        if kind in (TRUE, FALSE):
            fields[last] = kind, kind == TRUE
        else:
            value, position = _value(data, position, kind)
            fields[last] = kind, value
    return fields, position + 1


def encode(fields: dict[int, tuple[int, Any]]) -> bytes:
    """The inverse of `decode`."""
    out, last = bytearray(), 0
    for field, (kind, value) in sorted(fields.items()):
        if 0 < field - last < 16:
            out.append((field - last) << 4 | kind)
        else:
            out.append(kind)
            out += _varint(field << 1)
        last = field
        if kind not in (TRUE, FALSE):
            out += _encoded(kind, value)
    return bytes(out) + b"\0"


def _value(data: bytes, position: int, kind: int) -> tuple[Any, int]:
    if kind in (I16, I32, I64):
        return _zigzag(data, position)
    if kind == STRUCT:
        return decode(data, position)
    if kind == BYTE:
        return data[position], position + 1
    if kind == DOUBLE:
        return data[position : position + 8], position + 8
    if kind == BINARY:
        length, position = _unsigned(data, position)
        return data[position : position + length], position + length
    assert kind in (LIST, SET), f"type {kind} is not in Parquet"
    head, position = data[position], position + 1
    count = head >> 4
    if count == 15:
        count, position = _unsigned(data, position)
    values = []
    for _ in range(count):
        value, position = _value(data, position, head & 15)
        values.append(value)
    return (head & 15, values), position


def _encoded(kind: int, value: Any) -> bytes:
    if kind in (I16, I32, I64):
        return _varint((value << 1) ^ (value >> 63))
    if kind == STRUCT:
        return value if isinstance(value, bytes) else encode(value)
    if kind == BINARY:
        return _varint(len(value)) + value
    if kind == BYTE:
        return bytes([value])
    if kind == DOUBLE:
        return bytes(value)
    element, values = value
    head = bytes([len(values) << 4 | element]) if len(values) < 15 else bytes([0xF0 | element])
    size = b"" if len(values) < 15 else _varint(len(values))
    return head + size + b"".join(_encoded(element, one) for one in values)


def _varint(value: int) -> bytes:
    out = bytearray()
    value &= (1 << 64) - 1
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _unsigned(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position


def _zigzag(data: bytes, position: int) -> tuple[int, int]:
    value, position = _unsigned(data, position)
    return (value >> 1) ^ -(value & 1), position
