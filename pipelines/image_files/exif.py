"""The orientation in EXIF data, read by hand: a few bytes at a time, whatever the data claims.

General readers load every tag first, and a tag may claim as many bytes as the file has. Source:
TIFF 6.0, section 2 (directories); EXIF 2.32, tag 0x0112.
"""

from __future__ import annotations

import struct

ORIENTATION = 0x0112

_TYPES = {3: "H", 4: "I"}


def orientation(data: bytes) -> int:
    """1 .. 8 as the first directory says, with or without the ``Exif`` mark before it.

    1 where it says nothing, something else, or is damaged.
    """
    data = data.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        for offset in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, number = struct.unpack_from(order + "HHI", data, offset)
            if tag == ORIENTATION and number == 1 and kind in _TYPES:
                (value,) = struct.unpack_from(order + _TYPES[kind], data, offset + 8)
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass  # it ends before what it claims
    return 1
