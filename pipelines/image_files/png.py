"""A PNG cut down to what its pixels are made of, and checked against its own checksums.

What decoders are known for is kept from them: compressed texts and profiles that unpack to
gigabytes, frames of animations, checksums that nobody compares, pixels that end early and are
filled up with black. Format: W3C PNG (Third Edition), sections 5, 9 and 11.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image

from pipelines.errors import ImageError
from pipelines.image_files import exif

MAGIC = b"\x89PNG\r\n\x1a\n"

COLORS = {0: "grey", 2: "RGB", 3: "a palette", 4: "grey and alpha", 6: "RGB and alpha"}
"""What the colour types of a header mean."""

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_BITS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PALETTE = 3
_PIECE = 1 << 16
_NAME = re.compile(rb"[A-Za-z]{4}")
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
_ADAM7 = (*_PASSES, (1, 0, 2, 1))
"""Of each pass: its first row and column, and the steps between its rows and columns."""


class Chunk(NamedTuple):
    """A chunk's type, and where its content lies in the file; the content may be cut off."""

    name: bytes
    start: int
    length: int


@dataclass(frozen=True)
class Header:
    """What the IHDR chunk says. ``color`` is the colour type; 3 is a palette."""

    width: int
    height: int
    bits: int
    color: int
    interlaced: bool

    @property
    def raw_bytes(self) -> int:
        """The size of the filtered pixels before compression."""
        passes = _ADAM7 if self.interlaced else ((0, 0, 1, 1),)
        total = 0
        for row, column, down, right in passes:
            rows = -(-(self.height - row) // down)
            pixels = -(-(self.width - column) // right)
            if rows > 0 and pixels > 0:
                total += rows * (1 + -(-pixels * self.bits * _CHANNELS[self.color] // 8))
        return total


def read_header(data: bytes) -> Header:
    """The header of a PNG, which may be cut off behind it. Raises ImageError."""
    first = next(chunks(data), None)
    if first is None or first.name != b"IHDR" or first.length != 13 or len(data) < first.start + 13:
        raise ImageError("not_an_image", f"a PNG has its header at byte 8, this one {data[8:24]!r}")
    width, height, bits, color, packing, filters, interlacing = struct.unpack_from(
        ">IIBBBBB", data, first.start
    )
    if not (0 < width < 1 << 31 and 0 < height < 1 << 31):
        raise ImageError("not_an_image", f"its header claims {height}x{width} pixels")
    if bits not in _BITS.get(color, ()) or packing or filters or interlacing > 1:
        raise ImageError(
            "not_an_image",
            f"its header has colour type {color} of {bits} bits, compression {packing}, "
            f"filter {filters} and interlacing {interlacing}, which no PNG has",
        )
    return Header(width, height, bits, color, bool(interlacing))


def chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks up to IEND, or to where the file ends or is no chunk."""
    offset = len(MAGIC)
    while offset + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, offset)
        if not _NAME.fullmatch(name):
            return
        yield Chunk(name, offset + 8, length)
        if name == b"IEND":
            return
        offset += 12 + length


def orientation(data: bytes) -> int:
    """What the first eXIf chunk says, before or behind the pixels; 1 if there is none."""
    for chunk in chunks(data):
        if chunk.name == b"eXIf":
            return exif.orientation(data[chunk.start : chunk.start + chunk.length])
    return 1


def essence(data: bytes) -> bytes:
    """Header, palette and pixels as a PNG of their own, with every checksum compared.

    Raises ImageError of kind ``truncated`` if one of them is cut off, damaged or missing.
    """
    kept: list[Chunk] = []
    for chunk in chunks(data):
        pixels = bool(kept) and kept[-1].name == b"IDAT"
        if chunk.name == b"IDAT" or (chunk.name in {b"IHDR", b"PLTE"} and not pixels):
            _check(data, chunk)
            kept.append(chunk)
        elif pixels:
            break
    names = {chunk.name for chunk in kept}
    if b"IDAT" not in names:
        raise ImageError("truncated", "the PNG has no pixels")
    if b"PLTE" not in names and read_header(data).color == _PALETTE:
        raise ImageError("truncated", "the PNG's palette is missing")
    view = memoryview(data)
    parts = [view[chunk.start - 8 : chunk.start + chunk.length + 4] for chunk in kept]
    return b"".join([MAGIC, *parts, struct.pack(">I4sI", 0, b"IEND", zlib.crc32(b"IEND"))])


def _check(data: bytes, chunk: Chunk) -> None:
    name, start, length = chunk
    if start + length + 4 > len(data):
        raise ImageError(
            "truncated", f"the PNG is cut off at byte {len(data)}, inside its chunk {name.decode()}"
        )
    (stored,) = struct.unpack_from(">I", data, start + length)
    if zlib.crc32(memoryview(data)[start - 4 : start + length]) != stored:
        raise ImageError(
            "truncated", f"the chunk {name.decode()} at byte {start - 8} fails its checksum"
        )


def check_pixels(image: Image.Image, header: Header, essential: bytes) -> None:
    """Check a loaded image: every row was there, and every index has a colour.

    Decoders leave rows that are missing at 0, so that only an image whose last row is 0 needs to
    be counted. Raises ImageError of kind ``truncated``.
    """
    last = np.asarray(image.crop((0, header.height - 1, header.width, header.height)))
    if header.interlaced or not last.any():
        found = _unpacked_bytes(essential, header.raw_bytes)
        if found < header.raw_bytes:
            raise ImageError(
                "truncated",
                f"the pixels end early: {found} bytes of {header.raw_bytes} that the header claims",
            )


def _unpacked_bytes(data: bytes, enough: int) -> int:
    """How many bytes the pixels unpack to, counted no further than ``enough``."""
    unpacker, total = zlib.decompressobj(), 0
    for chunk in chunks(data):
        if chunk.name != b"IDAT":
            continue
        for start in range(chunk.start, chunk.start + chunk.length, _PIECE):
            rest = data[start : min(start + _PIECE, chunk.start + chunk.length)]
            while rest and total < enough and not unpacker.eof:
                total += len(unpacker.decompress(rest, _PIECE << 4))
                rest = unpacker.unconsumed_tail
    return total
