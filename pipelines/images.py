"""Image and label files to arrays and back, with one fixed rule for every odd file.

Images, `decode_image`:

* Formats: JPEG (also MPO), PNG, WebP, BMP, TIFF, GIF, PPM, JPEG 2000, recognised by content, never
  by name. Of several frames or pages the first counts.
* The EXIF orientation is applied; height and width are always those of the upright image. In a
  PNG, only EXIF data before the pixels counts.
* Grey, 1 bit, palette, CMYK and YCbCr become RGB. Alpha is dropped, not composited. 16-bit values
  v become v // 257, so 65535 is 255. 32-bit integers and floats have no known scale: refused.
* The size is read from the header and refused above ``max_pixels`` or 16,384 a side before any
  pixel is decoded.
* A file that is cut off or damaged is refused, never filled up with grey. Pillow's process-wide
  switch for that, ``LOAD_TRUNCATED_IMAGES``, is turned off by every call here.

Labels, `decode_label`: PNG only, palette indices or 8-bit grey taken as class ids. They never pass
through RGB, and no orientation is applied. Grey of less than 8 bits is refused, since decoders
scale it: 1 of 15 would become id 17.

Measured planes beside an image keep their values: `decode_depth` takes 16-bit grey, `decode_hha`
8-bit RGB, both as PNG and as stored.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from fcn_model.classes import ClassList, voc_palette
from pipelines.errors import ImageError, LabelError

Pixels = npt.NDArray[np.uint8]

DEFAULT_MAX_PIXELS = 40_000_000
MAX_SIDE = 16_384
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000")
VOID_COLOR = voc_palette()[255]

_SIXTEEN_BITS = {"I;16", "I;16B", "I;16L", "I;16N"}
_opening = threading.Lock()


def probe(data: bytes) -> tuple[int, int]:
    """(height, width) of the upright image in pixels, from the header; pixels are not decoded.

    Raises ImageError if the header cannot be read.
    """
    with _opened(data, FORMATS) as (image, orientation):
        width, height = image.size
    return (width, height) if orientation >= 5 else (height, width)


def decode_image(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Pixels:
    """The upright image as (H, W, 3) uint8, RGB. Raises ImageError; see the rules above."""
    with _opened(data, FORMATS) as (image, orientation):
        _check_size(image, max_pixels)
        _load(image)
        return _upright(_rgb(image), orientation)


def decode_label(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Pixels:
    """The class ids of a label PNG as (H, W) uint8. Raises ImageError; see the rules above."""
    with _opened(data, ("PNG",)) as (label, _):
        bits = data[24] if label.mode == "L" else 8  # IHDR: width, height, bit depth
        if label.mode not in {"P", "L"} or bits != 8:
            raise ImageError(
                "unsupported_mode",
                "a label is a PNG with a palette or 8-bit grey; "
                f"this one has mode {label.mode} and {bits} bits",
            )
        _check_size(label, max_pixels)
        _load(label)
        return np.array(label, dtype=np.uint8)


def decode_depth(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> npt.NDArray[np.uint16]:
    """A depth plane as (H, W) uint16, from a 16-bit grey PNG; 0 is where nothing was measured.

    Raises ImageError.
    """
    wanted = "a depth plane is a 16-bit grey PNG"
    return _plane(data, _SIXTEEN_BITS, 16, wanted, max_pixels).astype(np.uint16)


def decode_hha(data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Pixels:
    """An HHA plane as (H, W, 3) uint8, channels in the order of the PNG. Raises ImageError."""
    wanted = "an HHA plane is an 8-bit PNG of three channels"
    return _plane(data, {"RGB"}, 8, wanted, max_pixels)


def _plane(data: bytes, modes: set[str], bits: int, wanted: str, max_pixels: int) -> np.ndarray:
    with _opened(data, ("PNG",)) as (image, _):
        found = data[24]  # IHDR; three channels of 16 bits would be cut to 8 without a word
        if image.mode not in modes or found != bits:
            text = f"{wanted}; this one has mode {image.mode} and {found} bits"
            raise ImageError("unsupported_mode", text)
        _check_size(image, max_pixels)
        _load(image)
        return np.array(image)


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
    if ids.ndim != 2 or ids.dtype != np.uint8:
        raise ValueError(f"ids are (H, W) uint8, got {ids.dtype} of shape {ids.shape}")
    colors = [(0, 0, 0)] * (max(len(classes) - 1, classes.void_id) + 1)
    colors[: len(classes)] = classes.palette
    colors[classes.void_id] = VOID_COLOR
    image = Image.fromarray(ids)
    image.putpalette([value for color in colors for value in color])
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@contextmanager
def _opened(data: bytes, formats: tuple[str, ...]) -> Iterator[tuple[Image.Image, int]]:
    """The image with its header read, and its EXIF orientation 1..8; no pixel is decoded yet."""
    if not data:
        raise ImageError("empty", "the file has no bytes")
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    # The filters for warnings are process-wide; the lock keeps threads from restoring each other's.
    with _opening, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes, which are checked, and of odd EXIF data
        try:
            image = Image.open(io.BytesIO(data), formats=formats)
        except Exception as error:
            raise _header_error(error, data, formats) from error
        orientation = _orientation(image)
    with image:
        yield image, orientation


def _header_error(error: Exception, data: bytes, formats: tuple[str, ...]) -> ImageError:
    if isinstance(error, Image.DecompressionBombError):
        return ImageError("too_large", f"the header claims a huge size ({error})")
    if isinstance(error, OSError) and "truncated" in str(error).lower():
        return ImageError("truncated", f"the file ends inside its header ({error})")
    if isinstance(error, UnidentifiedImageError):
        start = data[:16]
        return ImageError("not_an_image", f"no {'/'.join(formats)} file; it starts with {start!r}")
    return ImageError("not_an_image", f"the header cannot be read ({error!r})")


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":
        return 1  # Pillow turns TIFF images itself
    try:
        # The method of the base class: PNG's own would decode all pixels in search of EXIF data.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - broken EXIF data raises nearly anything, and means none
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if height * width > max_pixels or max(height, width) > MAX_SIDE:
        raise ImageError(
            "too_large",
            f"{height}x{width} pixels (height x width); "
            f"at most {max_pixels} pixels and {MAX_SIDE} a side are read",
        )


def _load(image: Image.Image) -> None:
    try:
        image.load()
    except Exception as error:  # a damaged body raises nearly anything
        raise ImageError("truncated", f"the pixels are cut off or damaged ({error})") from error


def _rgb(image: Image.Image) -> Pixels:
    """The loaded image as (H, W, 3) uint8, not yet upright."""
    mode = image.mode
    if mode in _SIXTEEN_BITS or (mode == "I" and image.format in {"PNG", "PPM"}):
        grey = np.clip(np.asarray(image), 0, 65535) // 257
        return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    if mode in {"I", "F", "LAB", "HSV"}:
        raise ImageError("unsupported_mode", f"{image.format} of mode {mode} has no fixed scale")
    if mode in {"P", "PA", "La", "RGBa"}:
        image = image.convert("RGBA")  # in one step, transparency in a palette would be guessed at
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Turn as EXIF 2.32, tag 0x0112, asks for; writable and contiguous."""
    if orientation in {5, 6, 7, 8}:
        pixels = pixels.swapaxes(0, 1)
    if orientation in {3, 4, 7, 8}:
        pixels = pixels[::-1]
    if orientation in {2, 3, 6, 7}:
        pixels = pixels[:, ::-1]
    return np.array(pixels, dtype=np.uint8, order="C")
