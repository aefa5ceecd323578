"""Image files written byte by byte, so that what they hold is known without any imaging library."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

RAMP = np.linspace(0, 65535, 16 * 64).astype(np.uint16).reshape(16, 64)
"""(H, W) uint16, every level of eight bits four times."""


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image as Pillow writes it."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours, so that JPEG keeps them within a few levels."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [3 * x + seed, 5 * y, 2 * x + y]
    return np.clip(np.stack(channels, axis=2), 0, 255).astype(np.uint8)


def chunk(name: bytes, data: bytes) -> bytes:
    """A PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def rows_of(values: np.ndarray, bits: int) -> bytes:
    """(H, W) or (H, W, C) values as unfiltered PNG rows."""
    lines = values.reshape(len(values), -1)
    if bits < 8:
        digits = np.unpackbits(lines.astype(np.uint8)[:, :, None], axis=2)[:, :, 8 - bits :]
        packed = np.packbits(digits.reshape(len(lines), -1), axis=1)
    else:
        packed = lines.astype(">u2" if bits == 16 else np.uint8)
    return b"".join(b"\0" + line.tobytes() for line in packed)


def png(
    values: np.ndarray,
    bits: int = 8,
    *,
    color: int | None = None,
    size: tuple[int, int] | None = None,
    before: bytes = b"",
    pixels: bytes | None = None,
) -> bytes:
    """A PNG of (H, W) or (H, W, C) values; ``before`` are chunks that stand before the pixels.

    ``size`` is what the header claims instead of the truth, ``pixels`` the content of IDAT.
    """
    height, width = size or values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels] if color is None else color
    body = zlib.compress(rows_of(values, bits)) if pixels is None else pixels
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), before, chunk(b"IDAT", body), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


_CODES = {1: "B", 3: "H", 4: "I"}


def tiff(
    strips: Sequence[bytes],
    size: tuple[int, int],
    *,
    bits: Sequence[int] = (8,),
    photometric: int = 1,
    order: str = "<",
    more: Iterable[tuple[int, int, Sequence[int]]] = (),
    rows_per_strip: int | None = None,
) -> bytes:
    """A TIFF of strips that lie behind its directory; ``more`` are (tag, type, values).

    A tag in ``more`` replaces the one that is written by default. The next directory is 0.
    """
    height, width = size
    tags = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, bits),
        259: (3, [1]),
        262: (3, [photometric]),
        273: (4, [0] * len(strips)),
        277: (3, [len(bits)]),
        278: (4, [rows_per_strip or height]),
        279: (4, [len(strip) for strip in strips]),
    }
    tags |= {tag: (kind, values) for tag, kind, values in more}
    after = 8 + 2 + 12 * len(tags) + 4
    sizes = {
        tag: struct.calcsize(_CODES[kind]) * len(values) for tag, (kind, values) in tags.items()
    }
    first = after + sum(size + size % 2 for size in sizes.values() if size > 4)
    places = np.cumsum([first, *(len(strip) for strip in strips)])[:-1].tolist()
    tags[273] = (4, places)
    directory, aside = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        content = struct.pack(f"{order}{len(values)}{_CODES[kind]}", *values)
        directory += struct.pack(order + "HHI", tag, kind, len(values))
        if len(content) > 4:
            directory += struct.pack(order + "I", after + len(aside))
            aside += content + bytes(len(content) % 2)
        else:
            directory += content.ljust(4, b"\0")
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(order + "IH", 8, len(tags)) + directory + bytes(4)
    return head + aside + b"".join(strips)


def gif(
    canvas: tuple[int, int],
    frames: Sequence[tuple[tuple[int, int], np.ndarray]],
    palette: Sequence[tuple[int, int, int]],
    *,
    transparent: int | None = None,
) -> bytes:
    """A GIF whose frames are ((top, left), (H, W) indices), each cleared for the next one."""
    bits = max(1, (len(palette) - 1).bit_length())
    colors = b"".join(bytes(color) for color in palette).ljust(3 << bits, b"\0")
    file = b"GIF89a" + struct.pack("<HHBBB", canvas[1], canvas[0], 0x80 | bits - 1, 0, 0) + colors
    for (top, left), indices in frames:
        flags = 2 << 2 | (transparent is not None)
        file += b"!\xf9\4" + struct.pack("<BHBB", flags, 10, transparent or 0, 0)
        height, width = indices.shape
        file += b"," + struct.pack("<HHHHB", left, top, width, height, 0) + _lzw(indices.ravel())
    return file + b";"


def _lzw(indices: np.ndarray) -> bytes:
    """Codes of nine bits, with a clear code before the table could grow."""
    codes = []
    for start in range(0, len(indices), 200):
        codes += [256, *indices[start : start + 200].tolist()]
    number = sum(code << 9 * place for place, code in enumerate([*codes, 257]))
    data = number.to_bytes(9 * (len(codes) + 1) // 8 + 1, "little")
    blocks = [data[start : start + 255] for start in range(0, len(data), 255)]
    return b"\x08" + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def exif(orientation: int, order: str = "<") -> bytes:
    """EXIF data of one tag."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return mark + struct.pack(order + "IH", 8, 1) + entry + bytes(4)


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Upright from stored pixels: by the words of EXIF 2.32 for rows and columns of tag 0x0112.

    Said there is which side of the picture the stored row 0 and the stored column 0 are.
    """
    sides = {
        1: ("top", "left"),
        2: ("top", "right"),
        3: ("bottom", "right"),
        4: ("bottom", "left"),
        5: ("left", "top"),
        6: ("right", "top"),
        7: ("right", "bottom"),
        8: ("left", "bottom"),
    }
    row_side, column_side = sides[orientation]
    rows, columns = pixels.shape[:2]
    height, width = (columns, rows) if row_side in {"left", "right"} else (rows, columns)
    upright = np.zeros((height, width, *pixels.shape[2:]), pixels.dtype)
    for row in range(rows):
        for column in range(columns):
            place = {row_side: row, column_side: column}
            y = place["top"] if "top" in place else height - 1 - place["bottom"]
            x = place["left"] if "left" in place else width - 1 - place["right"]
            upright[y, x] = pixels[row, column]
    return upright
