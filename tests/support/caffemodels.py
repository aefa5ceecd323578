"""The bytes of a .caffemodel, laid down one field after the other as protobuf defines them."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

LEGACY_AXES = 4


def varint(value: int) -> bytes:
    """Seven bits a byte, the least significant first; negative numbers as 64-bit ones."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: bytes | int) -> bytes:
    """A field of bytes with their length, or of a number."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def blob(
    array: NDArray[np.float32], *, legacy: bool = False, kind: str = "packed", diff: bool = False
) -> bytes:
    """A BlobProto; ``kind`` is packed, unpacked or double; legacy shapes have four axes."""
    shape = array.shape
    if legacy:
        full = (1,) * (LEGACY_AXES - len(shape)) + shape
        out = b"".join(field(number, size) for number, size in enumerate(full, 1))
    else:
        out = field(7, field(1, b"".join(varint(size) for size in shape)))
    values = array.ravel()
    if kind == "packed":
        out += field(5, values.astype("<f4").tobytes())
    elif kind == "double":
        out += field(8, values.astype("<f8").tobytes())
    else:
        tag = varint(5 << 3 | 5)
        out += b"".join(tag + struct.pack("<f", value) for value in values)
    return out + (field(6, values.astype("<f4").tobytes()) if diff else b"")


def layer(name: str, blobs: list[bytes], *, legacy: bool = False) -> bytes:
    """A LayerParameter in its NetParameter, or with ``legacy`` a V1LayerParameter."""
    parts = (4, 5, 6) if legacy else (1, 2, 7)
    kind: bytes | int = 4 if legacy else b"Convolution"
    inner = field(parts[0], name.encode()) + field(parts[1], kind)
    inner += b"".join(field(parts[2], value) for value in blobs)
    return field(2 if legacy else 100, inner)


def caffemodel(
    arrays: Mapping[str, NDArray[np.float32]],
    *,
    net: str = "",
    legacy: bool = False,
    kind: str = "packed",
) -> bytes:
    """A file of arrays called LAYER.weight and LAYER.bias, with layers without blobs between."""
    layers: dict[str, list[bytes]] = {}
    for name, array in arrays.items():
        one = blob(array, legacy=legacy, kind=kind, diff=True)
        layers.setdefault(name.rpartition(".")[0], []).append(one)
    out = field(1, net.encode()) + field(3, b"data") + field(5, 0)
    for name, blobs in layers.items():
        out += layer(name, blobs, legacy=legacy) + layer(f"relu {name}", [], legacy=legacy)
    return out
