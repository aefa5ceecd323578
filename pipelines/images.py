"""Image and label files to arrays and back, with one fixed rule for every odd file.

Images, `decode_image`:

* Formats: JPEG (also MPO), PNG, WebP, BMP, TIFF, GIF, PPM, JPEG 2000, recognised by content, never
  by name. Of several frames or pages the first counts; of an animated PNG it is the picture that
  every reader shows, of a GIF the whole canvas, colour 0 or transparent where nothing was drawn.
* The EXIF orientation of JPEG, PNG, WebP and TIFF is applied, and nothing else that turns: no XMP.
  Height and width are always those of the upright image.
* Grey, 1 bit, palette, CMYK (inverted in a JPEG, as all write it) and YCbCr become RGB. Alpha is
  dropped, not composited. Colour profiles, gamma and significant bits are ignored.
* 12 and 16 bits become their upper eight. If no value reaches 4,096 of 65,535, as when 12 bits lie
  in 16, the scale is unknown: refused, like 32-bit integers, floats, signed values, LAB.
* The size is read from the header and refused above ``max_pixels`` or `max_side` a side before any
  pixel is decoded.
* A file that is cut off or damaged is refused, never filled up with grey or black: missing JPEG
  scans, PNG rows or TIFF strips, wrong PNG checksums, palette colours that do not exist. What
  follows the picture in its file is not looked at. Pillow's process-wide switches for cut images
  (``LOAD_TRUNCATED_IMAGES``) and for large ones (``MAX_IMAGE_PIXELS``) are set by every call here.

Labels, `decode_label`: PNG only, palette indices or 8-bit grey taken as class ids. They never pass
through RGB, and no orientation is applied. Grey of less than 8 bits is refused, since decoders
scale it: 1 of 15 would become id 17.

Measured planes beside an image keep their values: `decode_depth` takes 16-bit grey, `decode_hha`
8-bit RGB, both as PNG and as stored.
"""

from __future__ import annotations

import io
import math
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcn_model.classes import ClassList, voc_palette
from pipelines.errors import ImageError, LabelError
from pipelines.image_files import opened, png, pnm
from pipelines.image_files.modes import upright_rgb
from pipelines.image_files.signatures import format_of

Pixels = npt.NDArray[np.uint8]

DEFAULT_MAX_PIXELS = 40_000_000
MAX_SIDE = 16_384
"""What a side may have at the least; see `max_side`."""
VOID_COLOR = voc_palette()[255]


def max_side(max_pixels: int) -> int:
    """The longest side that is read: what a line of pixels costs must not depend on the file.

    Twice that of a square of ``max_pixels``, and never less than 16,384.
    """
    return max(MAX_SIDE, 2 * math.isqrt(max_pixels))


def probe(data: bytes) -> tuple[int, int]:
    """(height, width) of the upright image in pixels, from the header; pixels are not decoded.

    What follows the header may be missing, and the size may be over any limit. Raises ImageError if
    the header cannot be read.
    """
    return opened.read_head(data, format_of(data)).upright


def decode_image(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Pixels:
    """The upright image as (H, W, 3) uint8, RGB. Raises ImageError; see the rules above."""
    kind = format_of(data)
    head = opened.read_head(data, kind)
    _check_size(head.height, head.width, max_pixels, max_side(max_pixels))
    values = pnm.read_header(data) if kind == "PPM" else None
    if values is not None:
        return pnm.read(data, values)
    image, stored = opened.load(data, kind, head)
    return upright_rgb(image, stored)


def decode_label(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Pixels:
    """The class ids of a label PNG as (H, W) uint8. Raises ImageError; see the rules above."""
    wanted = "a label is a PNG with a palette or 8-bit grey"
    ids = _png(data, {(3, 1), (3, 2), (3, 4), (3, 8), (0, 8)}, wanted, max_pixels)
    return ids.astype(np.uint8, copy=False)


def decode_depth(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> npt.NDArray[np.uint16]:
    """A depth plane as (H, W) uint16, from a 16-bit grey PNG; 0 is where nothing was measured.

    Raises ImageError.
    """
    wanted = "a depth plane is a 16-bit grey PNG"
    return _png(data, {(0, 16)}, wanted, max_pixels).astype(np.uint16, copy=False)


def decode_hha(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Pixels:
    """An HHA plane as (H, W, 3) uint8, channels in the order of the PNG. Raises ImageError."""
    wanted = "an HHA plane is an 8-bit PNG of three channels"
    return _png(data, {(2, 8)}, wanted, max_pixels)


def _png(
    data: bytes, kinds: set[tuple[int, int]], wanted: str, max_pixels: int
) -> npt.NDArray[np.uint8]:
    """The stored values of a PNG whose (colour type, bits) are among ``kinds``; writable."""
    format_of(data, ("PNG",))
    header = png.read_header(data)
    if (header.color, header.bits) not in kinds:
        text = f"{wanted}; this one has {png.COLORS[header.color]} of {header.bits} bits"
        raise ImageError("unsupported_mode", text)
    _check_size(header.height, header.width, max_pixels)
    return np.array(opened.load_png(data))


def _check_size(height: int, width: int, max_pixels: int, side: int | None = None) -> None:
    if height * width > max_pixels or (side is not None and max(height, width) > side):
        limit = f"{max_pixels} pixels" + ("" if side is None else f" and {side} a side")
        text = f"{height}x{width} pixels (height x width); at most {limit} are read"
        raise ImageError("too_large", text)


def check_label(
    label: Pixels, classes: ClassList, where: str, image_size: tuple[int, int] | None = None
) -> None:
    """Check that every id of ``label`` (H, W) is a class or void, and that it fits its image.

    ``where`` names the image in the message. ``image_size`` is (height, width) of the upright
    image. Raises LabelError, which names the image and the values or both sizes.
    """
    if image_size is not None and label.shape != image_size:
        turned = (
            " (was it drawn on the unrotated image?)" if label.shape == image_size[::-1] else ""
        )
        raise LabelError(
            f"{where}: the label is {label.shape[0]}x{label.shape[1]} pixels (height x width), "
            f"its upright image {image_size[0]}x{image_size[1]}{turned}; labels are never resized"
        )
    counts = np.bincount(label.ravel(), minlength=256)
    counts[: len(classes)] = 0
    counts[classes.void_id] = 0
    wrong = np.flatnonzero(counts)
    if wrong.size:
        named = ", ".join(f"{value} ({counts[value]} pixels)" for value in wrong[:8])
        more = f" and {wrong.size - 8} more" if wrong.size > 8 else ""
        raise LabelError(
            f"{where}: the label holds ids {named}{more}; allowed are 0 to {len(classes) - 1} "
            f"and {classes.void_id} for void"
        )


def encode_mask(mask: Pixels, classes: ClassList) -> bytes:
    """A mask (H, W) uint8 of class ids as a palette PNG in the class colours.

    Raises LabelError if it holds anything else than ids 0 .. K-1.
    """
    if mask.size and int(mask.max()) >= len(classes):
        raise LabelError(f"a mask holds id {mask.max()}; allowed are 0 to {len(classes) - 1}")
    return _palette_png(mask, classes)


def encode_label(label: Pixels, classes: ClassList) -> bytes:
    """A label (H, W) uint8 of class ids and void as a palette PNG; void is VOC's pale yellow."""
    check_label(label, classes, "label to be written")
    return _palette_png(label, classes)


def _palette_png(ids: Pixels, classes: ClassList) -> bytes:
    """Zlib looks for runs of one id and no more: faster, and little larger (docs/speed.md)."""
    if ids.ndim != 2 or ids.dtype != np.uint8:
        raise ValueError(f"ids are (H, W) uint8, got {ids.dtype} of shape {ids.shape}")
    colors = [(0, 0, 0)] * (max(len(classes) - 1, classes.void_id) + 1)
    colors[: len(classes)] = classes.palette
    colors[classes.void_id] = VOID_COLOR
    image = Image.fromarray(ids)
    image.putpalette([value for color in colors for value in color])
    file = io.BytesIO()
    image.save(file, "PNG", compress_type=zlib.Z_RLE)
    return file.getvalue()
