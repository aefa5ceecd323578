"""A JPEG cut down to what its pixels are made of, and the ways in which it can be incomplete.

A decoder calls a JPEG whole that ends where a marker says so, and fills up with grey or with a
blur whatever did not come. So the scans are counted here: which components and coefficients they
bring, and how many restart intervals. Comments, profiles, thumbnails and further pictures of the
file never reach the decoder. Format: ITU-T T.81, annexes B, F and G.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from pipelines.errors import ImageError
from pipelines.image_files import exif

MAX_SEGMENTS = 10_000
"""Before the pixels; cameras write some tens."""
MAX_SCANS = 100
"""Encoders write up to about twenty. Each is a pass over the whole image."""

_SOI, _EOI, _SOS, _DRI, _APP0, _APP1, _ADOBE = 0xD8, 0xD9, 0xDA, 0xDD, 0xE0, 0xE1, 0xEE
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DECODED = {0xC0: False, 0xC1: False, 0xC2: True}
"""Kinds of frames that are read: whether their pixels come in several passes."""
_KEPT = _FRAMES | {0xC4, 0xCC, 0xDB, _DRI, _APP0, _ADOBE}
_MARKER = re.compile(rb"\xff[\x01-\xfe]")  # a literal first byte, or it is twenty times slower
_ABSENT = -1
_JUNK = bytes(range(7, 247, 5)) * 4
"""What a scan that is whole does not read, and what changes the pixels of one that is not."""


class Segment(NamedTuple):
    """A marker's code, and where its content lies without the two bytes of its length."""

    code: int
    start: int
    end: int


@dataclass(frozen=True)
class Frame:
    """The header of the picture: ``sampling`` has (id, horizontal, vertical) of the components."""

    height: int
    width: int
    progressive: bool
    sampling: tuple[tuple[int, int, int], ...]

    def units(self, components: bytes) -> int:
        """How many units a scan of these components has, of which restart intervals are made."""
        widest = max(across for _, across, _ in self.sampling)
        highest = max(down for _, _, down in self.sampling)
        if len(components) == 1:
            across, down = next(pair[1:] for pair in self.sampling if pair[0] == components[0])
            return _parts(self.width * across, 8 * widest) * _parts(self.height * down, 8 * highest)
        return _parts(self.width, 8 * widest) * _parts(self.height, 8 * highest)


@dataclass(frozen=True)
class Jpeg:
    """``essence`` is a JPEG of the pixels alone; ``padded`` the same with junk behind each scan."""

    frame: Frame
    essence: bytes
    ends: tuple[int, ...]

    @property
    def padded(self) -> bytes:
        """It decodes to the same pixels if every scan is whole, and to others if not."""
        pieces, start = [], 0
        for end in self.ends:
            pieces += [self.essence[start:end], _JUNK]
            start = end
        return b"".join([*pieces, self.essence[start:]])


def segments(data: bytes) -> Iterator[Segment]:
    """The segments up to the first scan, included, or to where the file ends.

    Raises ImageError of kind ``hostile`` if there are absurdly many.
    """
    position = 2
    for _ in range(MAX_SEGMENTS):
        match = _MARKER.search(data, position)  # bytes in between are skipped, as libjpeg does
        if match is None:
            return
        code, position = match[0][1], match.end()
        if code == _EOI:
            return
        if code == 0x01 or 0xD0 <= code <= _SOI:
            continue
        if position + 2 > len(data):
            return
        (length,) = struct.unpack_from(">H", data, position)
        yield Segment(code, position + 2, position + length)
        if code == _SOS:
            return
        position += max(length, 2)
    raise ImageError("hostile", f"there are over {MAX_SEGMENTS} segments before the pixels")


def read_frame(data: bytes) -> Frame:
    """The header of a JPEG, which may be cut off behind it.

    Raises ImageError: ``truncated`` if it ends before, ``unsupported_mode`` for kinds of JPEG that
    are not read, ``not_an_image`` if it makes no sense.
    """
    for code, start, end in segments(data):
        if code not in _FRAMES:
            continue
        if end > len(data) or end - start < 6:
            break
        bits, height, width, count = struct.unpack_from(">BHHB", data, start)
        if code not in _DECODED or bits != 8 or count not in {1, 3, 4}:
            raise ImageError(
                "unsupported_mode",
                f"it is a JPEG of kind SOF{code - 0xC0} with {count} components of {bits} bits; "
                "read are SOF0 to SOF2, Huffman coded, with 1, 3 or 4 components of 8 bits",
            )
        places = range(start + 6, end - 2, 3)
        sampling = tuple((data[at], data[at + 1] >> 4, data[at + 1] & 15) for at in places)
        shaped = all(1 <= across <= 4 and 1 <= down <= 4 for _, across, down in sampling)
        if not (height and width) or len(sampling) != count or not shaped:
            raise ImageError("not_an_image", f"its header claims {height}x{width} pixels")
        return Frame(height, width, _DECODED[code], sampling)
    raise ImageError("truncated", "the JPEG ends before the header of its picture")


def orientation(data: bytes) -> int:
    """What the first EXIF segment says; 1 if there is none."""
    for code, start, end in segments(data):
        if code == _APP1 and data.startswith(b"Exif\0\0", start):
            return exif.orientation(data[start:end])
    return 1


def read(data: bytes) -> Jpeg:
    """The JPEG reduced to its pixels. Raises ImageError as `read_frame`, and if it is incomplete.

    Found are: no end mark, components or coefficients that no scan brings, and restart intervals
    that are missing.
    """
    frame = read_frame(data)
    header = list(segments(data))
    if not header or header[-1].code != _SOS:
        raise ImageError("truncated", "the JPEG ends before its pixels")
    interval = 0
    for code, start, _ in header:
        if code == _DRI and start + 2 <= len(data):
            (interval,) = struct.unpack_from(">H", data, start)
    scans = Scans(data, frame, interval)
    scans.walk(header[-1])
    scans.check_whole()
    view, first = memoryview(data), header[-1].start - 4
    kept = [view[part.start - 4 : part.end] for part in header if part.code in _KEPT]
    head = b"".join([b"\xff\xd8", *kept])
    essence = b"".join([head, view[first : scans.end]])
    return Jpeg(frame, essence, tuple(end - first + len(head) for end in scans.ends))


class Scans:
    """The scans of a JPEG, walked from marker to marker without decoding anything."""

    def __init__(self, data: bytes, frame: Frame, interval: int) -> None:
        self.data = data
        self.frame = frame
        self.interval = interval
        self.ends: list[int] = []
        """Where the coded pixels of each scan end."""
        self.end = 0
        """Behind the end mark."""
        self._bits = {part: [_ABSENT] * 64 for part, _, _ in frame.sampling}
        """Of each coefficient, how many of its lowest bits are still to come."""

    def walk(self, segment: Segment) -> None:
        """From the first scan's header to the end mark."""
        restarts, scan = 0, self._begin(segment)
        position = segment.end
        while True:
            match = _MARKER.search(self.data, position)
            if match is None:
                text = f"the JPEG is cut off at byte {len(self.data)}: there is no end mark"
                raise ImageError("truncated", text)
            code, position = match[0][1], match.end()
            if 0xD0 <= code < _SOI:
                restarts += 1
                continue
            if scan:
                self._finish(scan, restarts, match.start())
            if code == _EOI:
                self.end = position
                return
            segment = self._segment(code, position)
            position, scan = segment.end, b""
            if code == _SOS:
                restarts, scan = 0, self._begin(segment)
            elif code == _DRI:
                (self.interval,) = struct.unpack_from(">H", self.data, segment.start)

    def _segment(self, code: int, position: int) -> Segment:
        """A segment between two scans; one that has no business there is damage."""
        length = int.from_bytes(self.data[position : position + 2], "big")
        whole = length >= 2 and position + length + 2 <= len(self.data)
        if not whole or code < 0xC0 or code in {_SOI, *_FRAMES}:
            text = f"the JPEG is cut off or damaged at byte {position - 2}: marker {code:02X}"
            raise ImageError("truncated", text)
        return Segment(code, position + 2, position + length)

    def _begin(self, segment: Segment) -> bytes:
        """The components of a scan, by their ids; notes which coefficients it brings."""
        if len(self.ends) >= MAX_SCANS:
            raise ImageError("hostile", f"the JPEG has over {MAX_SCANS} scans")
        header = self.data[segment.start : segment.end]
        count = header[0] if header else 0
        components = header[1 : 1 + 2 * count : 2]
        if not count or len(header) != 4 + 2 * count or not set(components) <= set(self._bits):
            raise ImageError("truncated", f"the scan at byte {segment.start - 4} is damaged")
        first, last, bits = header[-3:] if self.frame.progressive else (0, 63, 0)
        high, low = bits >> 4, bits & 15
        for part in components:
            for index in range(first, min(last, 63) + 1):
                if high != max(0, self._bits[part][index]):
                    raise ImageError(
                        "truncated",
                        f"the scan at byte {segment.start - 4} adds to one that is missing",
                    )
                self._bits[part][index] = low
        return components

    def _finish(self, components: bytes, restarts: int, end: int) -> None:
        wanted = _parts(self.frame.units(components), self.interval) - 1 if self.interval else 0
        if restarts < wanted:
            raise ImageError(
                "truncated", f"the JPEG has {restarts + 1} of {wanted + 1} restart intervals"
            )
        self.ends.append(end)

    def check_whole(self) -> None:
        """Raises ImageError if a component or a coefficient did not come in full."""
        absent = sorted(part for part, bits in self._bits.items() if any(bits))
        if absent:
            raise ImageError(
                "truncated",
                f"the JPEG ends after {len(self.ends)} scans, which do not bring all of its "
                f"component {absent[0]}",
            )


def _parts(total: int, size: int) -> int:
    return -(-total // size)
