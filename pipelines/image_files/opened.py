"""A file's header read, or its pixels decoded, by the rules of its format.

Every format is looked at by this package before Pillow is, which decodes, but believes what it is
told.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from pipelines.errors import ImageError
from pipelines.image_files import jpeg, jpeg2000, png, tiff, webp
from pipelines.image_files.modes import STRIP_PIXELS, Stored

_quiet_lock = threading.Lock()


class Head(NamedTuple):
    """The size of the stored image in pixels, and the EXIF orientation that turns it upright.

    That of a TIFF is turned already, with orientation 1, since Pillow turns it.
    """

    height: int
    width: int
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) of the upright image."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def read_head(data: bytes, kind: str) -> Head:
    """The head of a file of format ``kind``, from its header; the rest may be missing.

    Raises ImageError.
    """
    if kind == "PNG":
        header = png.read_header(data)
        return Head(header.height, header.width, png.orientation(data))
    if kind == "JPEG":
        frame = jpeg.read_frame(data)
        return Head(frame.height, frame.width, jpeg.orientation(data))
    if kind == "WEBP":
        return Head(*webp.read_size(data), webp.orientation(data))
    if kind == "TIFF":
        tiff.check_directory(data)
    width, height = open_image(data, kind).size
    return Head(height, width)


def load(data: bytes, kind: str, head: Head) -> tuple[Image.Image, Stored]:
    """The decoded image, not yet turned, and what is known of its values.

    Its size has been checked. Raises ImageError.
    """
    if kind == "PNG":
        header = png.read_header(data)
        deep = header.bits == 16 and header.color != 0
        return load_png(data), Stored(orientation=head.orientation, deep=deep)
    if kind == "JPEG":
        return _load_jpeg(data), Stored(orientation=head.orientation)
    stored = Stored(orientation=head.orientation)
    if kind == "WEBP":
        webp.check_whole(data)
    image = open_image(data, kind)
    if kind == "JPEG2000":
        stored = Stored(deep=jpeg2000.check(data, (head.height, head.width)))
    if kind == "TIFF":
        with _reading("the directory"), _quiet():
            stored = tiff.examine(image, data)
            decode(image)  # which reads further directories
    decode(image)
    if image.size != (head.width, head.height):
        text = f"{head.height}x{head.width} pixels are claimed, {image.height}x{image.width} there"
        raise ImageError("truncated", text)
    return image, stored


def load_png(data: bytes) -> Image.Image:
    """A decoded PNG, of which nothing is missing. Raises ImageError."""
    essence = png.essence(data)
    image = open_image(essence, "PNG")
    decode(image)
    png.check_pixels(image, png.read_header(data), essence)
    return image


def _load_jpeg(data: bytes) -> Image.Image:
    file = jpeg.read(data)
    image = open_image(file.essence, "JPEG")
    decode(image)
    if _ends_grey(image):
        again = open_image(file.padded, "JPEG")
        decode(again)
        if not _equal(image, again):
            raise ImageError("truncated", "the JPEG's pixels end early; the rest is grey")
    return image


def _ends_grey(image: Image.Image) -> bool:
    """Whether the last corner looks as if libjpeg had filled it up: with zeros, which are grey."""
    width, height = image.size
    corner = np.asarray(image.crop((max(0, width - 4), max(0, height - 4), width, height)))
    return bool((corner == (corner[-1, -1] if image.mode == "CMYK" else 128)).all())


def _equal(one: Image.Image, other: Image.Image) -> bool:
    width, height = one.size
    rows = max(1, STRIP_PIXELS // width)
    boxes = [(0, top, width, min(top + rows, height)) for top in range(0, height, rows)]
    return all(one.crop(box).tobytes() == other.crop(box).tobytes() for box in boxes)


def open_image(data: bytes, kind: str) -> Image.Image:
    """The file opened by Pillow: its header is read, no pixel decoded. Raises ImageError."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    Image.MAX_IMAGE_PIXELS = None
    with _reading("the header"), _quiet():
        try:
            return Image.open(io.BytesIO(data), formats=(kind,))
        except UnidentifiedImageError:
            return Image.OPEN[kind][0](io.BytesIO(data), "")  # which says why not


def decode(image: Image.Image) -> None:
    """Decode the pixels. Raises ImageError."""
    try:
        image.load()
    except Exception as error:  # a damaged body raises nearly anything
        raise ImageError("truncated", f"the pixels are cut off or damaged ({error})") from error


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """What Pillow raises about a header becomes ImageError."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        text = str(error)
        kind = "not_an_image"
        cause = error.__cause__ or error  # Pillow makes a SyntaxError of some
        ended = isinstance(cause, (struct.error, EOFError, IndexError))
        damaged = isinstance(error, OSError) and ("truncated" in text.lower() or "decoder" in text)
        if ended or damaged:  # a WebP is looked through when its decoder is created
            kind = "truncated"
        elif isinstance(error, SyntaxError) and "unknown pixel mode" in text:
            kind = "unsupported_mode"
        raise ImageError(kind, f"{what} cannot be read ({text or repr(error)})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings of odd EXIF data and the like.

    The filters are process-wide; the lock keeps threads from restoring each other's.
    """
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
