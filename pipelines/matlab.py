"""Arrays of numbers out of MATLAB 5 files, as `save` writes them without ``-v7.3``.

The format (MathWorks, "MAT-File Format", level 5) is a header of 128 bytes and then elements: a tag
with type and size, and the content, padded to eight bytes. A matrix is an element whose content is
elements again: flags with its class, its shape, its name, and its numbers, columns first; in a
struct, instead of numbers, a list of field names and then a matrix for each.

scipy.io reads all of it, but one damaged byte can end the process (1.17: an unknown type in a tag),
and here files come from anywhere. Only what labels need is read: numbers, also in nested structs.
What stands beside is skipped, which saves SBD's 20 sparse matrices a label.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pipelines.errors import ImageError

MAX_BYTES = 512 << 20
"""How much a file may hold uncompressed; a hostile one of some KB could unpack to gigabytes."""

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_STRUCT = 2
_STORED = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
"""The types of elements: numbers may be stored smaller than the class of their matrix."""

_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8"}
_CLASSES |= {15: "u8"}
_COMPLEX = 0x800


_MAX_FIELDS = 1000

_Elements = Iterator[tuple[int, memoryview]]


class _Matrix(NamedTuple):
    """A matrix that was read up to its name; ``rest`` are the elements that follow."""

    flags: int
    shape: tuple[int, ...]
    name: str
    rest: _Elements


def read_value(data: bytes, path: tuple[str, ...]) -> np.ndarray:
    """The matrix of real numbers at ``path``: the name of a variable, then fields of structs.

    Raises ImageError if the file is no MATLAB 5 file, is damaged, or has no such matrix there.
    """
    if data[:10] == b"MATLAB 7.3" or data[:8] == b"\x89HDF\r\n\x1a\n":
        raise ImageError(
            "unsupported_mode", "a MATLAB 7.3 file (HDF5); save it in MATLAB with '-v7'"
        )
    if data[124:128] not in {b"\x00\x01IM", b"\x01\x00MI"}:
        raise ImageError("not_an_image", f"no MATLAB 5 file; it starts with {data[:16]!r}")
    order = "<" if data[126:128] == b"IM" else ">"
    try:
        matrix = _find(_variables(data, order), path, order)
        return _numbers(matrix, ".".join(path), order)
    except ImageError:
        raise
    except (struct.error, zlib.error, IndexError, KeyError, ValueError) as error:
        raise ImageError("truncated", f"the MATLAB file is damaged ({error!r})") from error


def _variables(data: bytes, order: str) -> Iterator[_Matrix]:
    room = MAX_BYTES
    for kind, content in _elements(memoryview(data)[_HEADER:], order, padding=1):
        if kind == _COMPRESSED:
            plain = _inflate(content, room)
            room -= len(plain)
            for inner, matrix in _elements(memoryview(plain), order):
                if inner == _MATRIX:
                    yield _matrix(matrix, order)
        elif kind == _MATRIX:
            yield _matrix(content, order)


def _elements(data: memoryview, order: str, padding: int = 8) -> _Elements:
    """Type and content of each element."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start = at + 8
        if kind >> 16:  # a small element: two bytes of size, two of type, four of content
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        end = start + size
        if end > len(data):
            raise ImageError("truncated", f"an element ends at byte {end} of {len(data)}")
        yield kind, data[start:end]
        at = max(at + 8, end + -end % padding)


def _matrix(content: memoryview, order: str) -> _Matrix:
    rest = _elements(content, order)
    (flags,) = struct.unpack_from(f"{order}I", _next(rest))
    shape = tuple(np.frombuffer(_next(rest), f"{order}i4").tolist())
    return _Matrix(flags, shape, bytes(_next(rest)).decode("latin-1"), rest)


def _next(elements: _Elements) -> memoryview:
    """The content of the next element."""
    for _, content in elements:
        return content
    raise ValueError("a matrix has too few elements")


def _find(variables: Iterator[_Matrix], path: tuple[str, ...], order: str) -> _Matrix:
    names = []
    for matrix in variables:
        if matrix.name == path[0]:
            break
        names.append(matrix.name)
    else:
        raise ImageError("not_an_image", f"there is no variable {path[0]!r} but {names[:20]}")
    for field in path[1:]:
        fields = _fields(matrix, order) if matrix.flags & 0xFF == _STRUCT else {}
        if field not in fields or math.prod(matrix.shape) != 1:
            what = f"a {matrix.shape} struct of {list(fields)}" if fields else "no struct"
            wanted = ".".join(path)
            raise ImageError("not_an_image", f"{wanted} is wanted, but before .{field} is {what}")
        matrix = _matrix(fields[field], order)
    return matrix


def _fields(matrix: _Matrix, order: str) -> dict[str, memoryview]:
    """The fields of a struct and, of its first entry, their contents."""
    (width,) = struct.unpack_from(f"{order}i", _next(matrix.rest))
    names = bytes(_next(matrix.rest))
    if not 0 < width <= len(names) <= width * _MAX_FIELDS:
        raise ValueError(f"{len(names)} bytes of field names of {width} bytes")
    cells = (names[start : start + width] for start in range(0, len(names), width))
    return {cell.split(b"\0")[0].decode("latin-1"): _next(matrix.rest) for cell in cells}


def _numbers(matrix: _Matrix, what: str, order: str) -> np.ndarray:
    kind = matrix.flags & 0xFF
    if kind not in _CLASSES or matrix.flags & _COMPLEX:
        raise ImageError("unsupported_mode", f"{what} is no matrix of real numbers")
    stored, content = next(matrix.rest, (0, memoryview(b"")))
    values = np.frombuffer(content, order + _STORED[stored])
    return values.astype(_CLASSES[kind]).reshape(matrix.shape, order="F")


def _inflate(data: memoryview, room: int) -> bytes:
    unpack = zlib.decompressobj()
    plain = unpack.decompress(data, max(1, room))
    if unpack.unconsumed_tail:
        raise ImageError("too_large", f"it unpacks to over {MAX_BYTES} bytes")
    if not unpack.eof:
        raise ImageError("truncated", "a compressed variable is cut off")
    return plain
