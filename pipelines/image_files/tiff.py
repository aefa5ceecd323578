"""What a TIFF's directory says of its pixels, compared with what is there.

Pillow believes a directory: it reads strips of any length from wherever they are said to lie, and
leaves black what no strip brings. Source: TIFF 6.0, sections 3 to 8, 14 and 22.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import cast

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from pipelines.errors import ImageError
from pipelines.image_files.modes import Stored

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_SAMPLES, _ROWS, _PLANAR, _COLORS, _SUBSAMPLING, _FORMAT = 277, 278, 284, 320, 530, 339
_STRIPS, _STRIP_BYTES, _TILES, _TILE_BYTES, _TILE_WIDTH, _TILE_HEIGHT = 273, 279, 324, 325, 322, 323
_RAW, _JPEG = 1, 7
_YCBCR = 6
_SEPARATE = 2
_PRIVATE = 700
"""Tags from here on describe no pixels: notes, profiles, EXIF. Pillow passes over damaged ones."""
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}

MAX_TAGS = 1000


def check_directory(data: bytes) -> None:
    """The first directory and what it says of pixels are there.

    Raises ImageError: ``truncated`` if not, ``hostile`` for absurdly many tags.
    """
    order, big = ("<" if data[:2] == b"II" else ">"), b"+" in data[2:4]
    number, short, entry, room = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 4)
    try:
        (start,) = struct.unpack_from(order + number, data, 8 if big else 4)
        (count,) = struct.unpack_from(order + short, data, start)
        if count > MAX_TAGS:
            raise ImageError("hostile", f"it has {count} tags; at most {MAX_TAGS} are read")
        for index in range(count):
            place = start + struct.calcsize(order + short) + entry * index
            tag, kind, values, offset = struct.unpack_from(
                f"{order}HH{number}{number}", data, place
            )
            size = values * _SIZES.get(kind, 0)
            if size > room and tag < _PRIVATE and offset + size > len(data):
                raise ImageError("truncated", f"its tag {tag} ends at byte {offset + size}")
    except (struct.error, OverflowError):
        text = f"the TIFF is cut off at byte {len(data)}, inside or before its directory"
        raise ImageError("truncated", text) from None


def examine(image: Image.Image, data: bytes) -> Stored:
    """How the pixels of an opened TIFF are stored. Turns nothing: Pillow does, as tag 274 says.

    Raises ImageError: ``unsupported_mode`` for values without a known scale or layouts that Pillow
    mistakes, ``truncated`` for strips or tiles that are missing or lie outside the file.
    """
    image.info.pop("xmp", None)  # Pillow would look for another orientation there
    tags = cast(TiffImageFile, image).tag_v2
    bits = _numbers(tags, _BITS) or (1,)
    formats = _numbers(tags, _FORMAT)
    raw, separate = tags.get(_COMPRESSION, _RAW) == _RAW, tags.get(_PLANAR) == _SEPARATE
    photometric = tags.get(_PHOTOMETRIC, 0)
    if any(kind != 1 for kind in formats):
        raise _unsupported(f"values of sample format {formats}, which have no known scale")
    if raw and separate and max(bits) > 8:
        raise _unsupported(f"uncompressed planes of {max(bits)} bits")
    if raw and photometric == _YCBCR and _numbers(tags, _SUBSAMPLING) != (1, 1):
        raise _unsupported("uncompressed YCbCr with subsampling")
    if 0 < max(_numbers(tags, _COLORS), default=0) < 256:
        raise _unsupported("a palette of 8-bit values; a TIFF's go up to 65535")
    samples = tags.get(_SAMPLES, len(bits))
    _check_pieces(tags, data, samples if separate else 1, min(bits) * samples if raw else 0)
    return Stored(
        deep=max(bits) > 8 and samples > 1,
        bits=12 if bits == (12,) else 16,
        inverted=photometric == 0,
    )


def _numbers(tags: ImageFileDirectory_v2, tag: int) -> tuple[int, ...]:
    value = tags.get(tag, ())
    return tuple(value) if isinstance(value, Sequence) else (value,)


def _check_pieces(tags: ImageFileDirectory_v2, data: bytes, planes: int, raw_bits: int) -> None:
    """Every strip or tile is there; ``raw_bits`` are those of a pixel if it is not compressed."""
    width, height = tags[_WIDTH], tags[_HEIGHT]
    tiled = _TILES in tags and _STRIPS not in tags
    offsets = _numbers(tags, _TILES if tiled else _STRIPS)
    sizes = _numbers(tags, _TILE_BYTES if tiled else _STRIP_BYTES)
    across, down = width, tags.get(_ROWS, height)
    if tiled:
        across, down = tags.get(_TILE_WIDTH, 0), tags.get(_TILE_HEIGHT, 0)
    if not (across and down):
        raise ImageError("truncated", "its directory claims strips or tiles without pixels")
    wanted = -(-width // across) * -(-height // min(down, height)) * planes
    if len(offsets) < wanted:
        raise ImageError("truncated", f"{len(offsets)} of its {wanted} strips or tiles are there")
    if raw_bits and sizes and sum(sizes) < -(-width * height * raw_bits // 8):
        text = f"its strips or tiles have {sum(sizes)} bytes, too few for {height}x{width} pixels"
        raise ImageError("truncated", text)
    for offset, size in zip(offsets, sizes, strict=False):
        if offset + size > len(data):
            text = f"a strip or tile ends at byte {offset + size}, the file at byte {len(data)}"
            raise ImageError("truncated", text)
        last = data[max(offset, offset + size - 8) : offset + size]
        if tags.get(_COMPRESSION) == _JPEG and b"\xff\xd9" not in last:
            raise ImageError("truncated", f"the JPEG at byte {offset} has no end mark")


def _unsupported(what: str) -> ImageError:
    return ImageError("unsupported_mode", f"the TIFF has {what}; such are not read")
