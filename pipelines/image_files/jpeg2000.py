"""What a JPEG 2000 codestream says of its samples and tiles, which its decoder does not compare.

Format: ITU-T T.800, annex A.
"""

from __future__ import annotations

import struct

from pipelines.errors import ImageError

MAX_TILES = 10_000
"""The decoder takes some kilobytes for each, whatever it holds."""

_SIZ = b"\xff\x4f\xff\x51"
_SOT = b"\xff\x90"


def check(data: bytes, size: tuple[int, int]) -> bool:
    """Check the codestream of an image of ``size`` (height, width); whether it has over 8 bits.

    Raises ImageError: ``unsupported_mode`` for signed values, ``truncated`` if sizes disagree or
    tiles are missing, ``hostile`` for absurdly many of them.
    """
    start = data.find(_SIZ) + 4
    if start < 4 or len(data) < start + 38:
        raise ImageError("truncated", "the JPEG 2000 ends before its codestream")
    right, bottom, left, top, across, down, x, y, count = struct.unpack_from(
        ">8IH", data, start + 4
    )
    if (bottom - top, right - left) != size or not (across and down):
        raise ImageError(
            "truncated", f"its headers claim {size[0]}x{size[1]} and {bottom - top}x{right - left}"
        )
    depths = data[start + 38 : start + 38 + 3 * count : 3]
    if any(depth & 0x80 for depth in depths):
        raise ImageError("unsupported_mode", "its values are signed, so that black is not known")
    tiles = -(-(right - x) // across) * -(-(bottom - y) // down)
    if tiles > MAX_TILES:
        raise ImageError("hostile", f"it has {tiles} tiles; at most {MAX_TILES} are read")
    found = _tiles(data, start - 2)
    if found < tiles:
        raise ImageError("truncated", f"{found} of its {tiles} tiles are there")
    return any(depth >= 8 for depth in depths)


def _tiles(data: bytes, offset: int) -> int:
    """How many different tiles there are, from the main header's first segment on."""
    found = set()
    while offset + 12 <= len(data):
        marker, length = struct.unpack_from(">2sH", data, offset)
        if marker == _SOT:
            tile, length = struct.unpack_from(">HI", data, offset + 4)
            found.add(tile)
            offset += length or len(data)  # 0 is up to the end
        elif found or marker[:1] != b"\xff":
            break
        else:
            offset += 2 + length
    return len(found)
