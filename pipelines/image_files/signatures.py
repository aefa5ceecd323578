"""Which image format a file's first bytes say it has; a file's name says nothing."""

from __future__ import annotations

from pipelines.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000")

_READ: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    *((b"P%c" % kind, "PPM") for kind in b"123456fF"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
)

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "an EPS file"),
    (b"8BPS", "a Photoshop file"),
    (b"\0\0\1\0", "an icon"),
    (b"\0\0\2\0", "a cursor or a Targa image"),
    (b"icns", "an icon"),
    (b"DDS ", "a DDS texture"),
    (b"qoif", "a QOI image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"v/1\1", "an OpenEXR image"),
    (b"#?RADIANCE", "a Radiance image"),
    (b"SIMPLE  =", "a FITS file"),
    (b"P7", "a PAM image"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PK\3\4", "a zip archive"),
    (b"\x1f\x8b", "a file compressed with gzip"),
    (b"version https://git-lfs", "a pointer to Git LFS: fetch the files with `git lfs pull`"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML document, perhaps an SVG drawing"),
    (b"<!DOCTYPE", "a web page: was the download refused?"),
    (b"<html", "a web page: was the download refused?"),
    (b"\xef\xbb\xbf", "text, or an image that a text tool has put a byte order mark before"),
)

_BRANDS = {b"avif": "an AVIF image", b"avis": "an AVIF image", b"heic": "a HEIC photograph"}


def format_of(data: bytes, formats: tuple[str, ...] = FORMATS) -> str:
    """The format, one of ``formats``.

    Raises ImageError, kind ``empty`` or ``not_an_image``, whose text says what the file looks like
    and which formats are read.
    """
    if not data:
        raise ImageError("empty", "the file has no bytes")
    found = _known(data, _READ)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        found = "WEBP"
    if found in formats:
        return found
    looks = f"a {found} image" if found else _known(data, _OTHERS)
    if data[4:8] == b"ftyp":
        looks = _BRANDS.get(data[8:12], "an ISO media file, such as a film or a HEIF photograph")
    start = data[:16]
    raise ImageError(
        "not_an_image",
        f"no {', '.join(formats)} file; it starts with {start!r}"
        + (f" and looks like {looks}" if looks else ""),
    )


def _known(data: bytes, table: tuple[tuple[bytes, str], ...]) -> str:
    return next((what for start, what in table if data.startswith(start)), "")
