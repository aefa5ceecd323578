"""Binary PGM and PPM whose largest value is not 255, which Pillow takes minutes for.

Format: netpbm's pgm(5) and ppm(5): text fields between white space and comments, then values of
one byte, or of two with the upper first where the largest value is over 255.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipelines.errors import ImageError
from pipelines.image_files.modes import FULL_SCALE, STRIP_PIXELS, check_brightness

_CHANNELS = {b"P5": 1, b"P6": 3}
_SPACE = b" \t\n\v\f\r"
_DIGITS = b"0123456789"
_COMMENT = b"#"


class Header(NamedTuple):
    """``start`` is where the values start."""

    channels: int
    width: int
    height: int
    largest: int
    start: int


def read_header(data: bytes) -> Header | None:
    """The header, or None for other kinds of PNM, those up to 255, and nonsense."""
    channels = _CHANNELS.get(data[:2])
    if channels is None:
        return None
    numbers: list[int] = []
    position = 2
    while len(numbers) < 3:
        byte = data[position : position + 1]
        if byte == _COMMENT:
            position = data.find(b"\n", position)
            if position < 0:
                return None
        elif byte and byte in _SPACE:
            position += 1
        else:
            end = position
            while end < position + 10 and data[end : end + 1] and data[end] in _DIGITS:
                end += 1
            if end == position:
                return None
            numbers.append(int(data[position:end]))
            position = end
    width, height, largest = numbers
    if not (width and height and 0 < largest < FULL_SCALE) or largest == 255:
        return None
    return Header(channels, width, height, largest, position + 1)


def read(data: bytes, header: Header) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8: values scaled to 16 bits, of which the upper eight are kept.

    Raises ImageError as `modes.upright_rgb` does, and ``truncated`` if values are missing.
    """
    channels, width, height, largest, start = header
    kind = np.dtype(np.uint8 if largest < 256 else ">u2")
    count = height * width * channels
    if len(data) < start + count * kind.itemsize:
        raise ImageError("truncated", f"the PNM is cut off at byte {len(data)}")
    values = np.frombuffer(data, kind, count, start).reshape(height, width, channels)
    scale = np.arange(largest + 1, dtype=np.int64) * (FULL_SCALE - 1)
    table = ((scale + largest // 2) // largest).astype(np.uint16)
    rgb = np.empty((height, width, 3), np.uint8)
    rows = max(1, STRIP_PIXELS // width)
    brightest = 0
    for top in range(0, height, rows):
        scaled = table[np.minimum(values[top : top + rows], largest)]
        brightest = max(brightest, int(scaled.max()))
        rgb[top : top + rows] = scaled >> 8
    check_brightness(brightest)
    return rgb
