"""What a WebP says of itself before anything is decoded. Format: RFC 9649, section 2."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pipelines.errors import ImageError
from pipelines.image_files import exif


def chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(name, content) of each chunk; the last one may be cut off."""
    offset = 12
    while offset + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, offset)
        yield name, data[offset + 8 : offset + 8 + length]
        offset += 8 + length + length % 2


def read_size(data: bytes) -> tuple[int, int]:
    """(height, width) of the canvas. Raises ImageError."""
    name, content = next(chunks(data), (b"", b""))
    if name == b"VP8X" and len(content) >= 10:
        width, height = content[4:7], content[7:10]
        return int.from_bytes(height, "little") + 1, int.from_bytes(width, "little") + 1
    if name == b"VP8 " and content[3:6] == b"\x9d\x01\x2a" and len(content) >= 10:
        width, height = struct.unpack_from("<HH", content, 6)
        return height & 0x3FFF, width & 0x3FFF
    if name == b"VP8L" and content[:1] == b"\x2f" and len(content) >= 5:
        (bits,) = struct.unpack_from("<I", content, 1)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    raise ImageError("not_an_image", f"a WebP with no header of a picture, but {name!r}")


def orientation(data: bytes) -> int:
    """What its EXIF chunk says; 1 if there is none."""
    return next((exif.orientation(content) for name, content in chunks(data) if name == b"EXIF"), 1)


def check_whole(data: bytes) -> None:
    """Raises ImageError, kind ``truncated``, for a file shorter than its header says."""
    (size,) = struct.unpack_from("<I", data, 4)
    if len(data) < size + 8:
        text = f"the WebP is cut off at byte {len(data)}, of {size + 8} that its header claims"
        raise ImageError("truncated", text)
