"""Which file names are taken for images."""

_DECODED = {"jpg", "jpeg", "jpe", "jfif", "mpo", "png", "webp", "bmp", "tif", "tiff", "gif"}
_DECODED |= {"ppm", "pgm", "pbm", "pnm", "jp2", "j2k", "jpx"}
_OTHERS = {"avif", "heic", "heif", "jxl", "svg"}

IMAGE_SUFFIXES = frozenset(_DECODED | _OTHERS)
"""Lower case, without the dot. The last five cannot be decoded, but they are images all the same:
they become error rows instead of being passed over in silence."""


def suffix_of(name: str) -> str:
    """What follows the last dot of a file name, in lower case; empty if there is no dot."""
    head, dot, tail = name.rpartition(".")
    return tail.lower() if dot and head else ""


def is_image_name(name: str) -> bool:
    """Whether a key or file name ends like an image file."""
    return suffix_of(name.rpartition("/")[2]) in IMAGE_SUFFIXES


def without_suffix(key: str) -> str:
    """The key up to the last dot of its last part."""
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}{name.rpartition('.')[0] or name}"
