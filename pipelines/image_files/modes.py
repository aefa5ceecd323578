"""A loaded image of any mode to upright RGB, strip by strip, in one array and no other.

Pillow keeps four bytes for a pixel; what is made of them here is the result, three bytes for a
pixel, written once and in its final place. A second array of a huge image would not fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.errors import ImageError

STRIP_PIXELS = 4 << 20
SIXTEEN_BITS = frozenset({"I;16", "I;16B", "I;16L", "I;16N"})
FULL_SCALE = 1 << 16
LEAST_BRIGHT = 1 << 12
"""A 16-bit image must reach this value. What 12 bits can hold would come out black."""

_THROUGH_RGBA = frozenset({"P", "PA", "La", "RGBa"})
_KNOWN = frozenset({"1", "L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", *_THROUGH_RGBA})


@dataclass(frozen=True, kw_only=True)
class Stored:
    """How a file holds its pixels, where a loaded image no longer tells."""

    orientation: int = 1
    """1 .. 8, EXIF 2.32, tag 0x0112."""
    deep: bool = False
    """Its colours have 16 bits, of which Pillow keeps the upper eight."""
    bits: int = 16
    """Of a grey value that has more than eight."""
    inverted: bool = False
    """Such a grey value is black where it is largest."""


def upright_rgb(image: Image.Image, file: Stored) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8, contiguous and upright.

    Raises ImageError, kind ``unsupported_mode`` for values without a known scale, ``truncated`` for
    colours that a palette does not have.
    """
    if image.mode not in _KNOWN and not _grey16(image):
        text = f"{image.format} of mode {image.mode} has no fixed scale or colours"
        raise ImageError("unsupported_mode", text)
    width, height = image.size
    turned = file.orientation >= 5
    upright = np.empty((width, height, 3) if turned else (height, width, 3), np.uint8)
    stored = _as_stored(upright, file.orientation)
    rows = max(1, STRIP_PIXELS // width)
    brightest = 0
    for top in range(0, height, rows):
        box = (0, top, width, min(top + rows, height))
        strip = image if rows >= height else image.crop(box)
        if _grey16(image):
            values = np.clip(np.asarray(strip), 0, FULL_SCALE - 1).astype(np.uint16)
            values <<= 16 - file.bits
            brightest = max(brightest, int(values.max()))
            stored[top : box[3]] = ((~values if file.inverted else values) >> 8)[:, :, None]
        else:
            _check_palette(strip)
            strip = strip.convert("RGBA") if strip.mode in _THROUGH_RGBA else strip
            stored[top : box[3]] = np.asarray(
                strip if strip.mode == "RGB" else strip.convert("RGB")
            )
    if file.deep:  # of a value below 256 nothing is left: it cannot be told from 0
        check_brightness(int(upright.max()) << 8 or 1)
    check_brightness(brightest)
    return upright


def _grey16(image: Image.Image) -> bool:
    """Whether it has 16-bit grey values; Pillow scales those of a PPM, and calls them I."""
    return image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format in {"PNG", "PPM"})


def _as_stored(upright: npt.NDArray[np.uint8], orientation: int) -> npt.NDArray[np.uint8]:
    """A view of the upright image in which rows and columns are those of the file."""
    stored = upright
    if orientation in {2, 3, 6, 7}:
        stored = stored[:, ::-1]
    if orientation in {3, 4, 7, 8}:
        stored = stored[::-1]
    return stored.swapaxes(0, 1) if orientation >= 5 else stored


def check_brightness(brightest: int) -> None:
    """Raises ImageError if the brightest of 16-bit values is so dark that all would be black."""
    if 0 < brightest < LEAST_BRIGHT:
        raise ImageError(
            "unsupported_mode",
            f"none of its 16-bit values reaches {LEAST_BRIGHT}, so that all would come out black: "
            "are they of fewer bits? Scale them to 0 .. 65535",
        )


def _check_palette(strip: Image.Image) -> None:
    if strip.mode != "P":
        return
    colors = len(strip.getpalette() or ()) // 3
    largest = int(np.asarray(strip).max())
    if largest >= colors:
        text = f"a pixel has colour {largest} of a palette of {colors}"
        raise ImageError("truncated", text)
