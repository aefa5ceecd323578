"""JPEGs of which something is missing, although they end with an end mark."""

from __future__ import annotations

import io
import re
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines import images
from pipelines.errors import ImageError
from tests.support.odd_images import encoded, exif, photo, turned

END = b"\xff\xd9"
PHOTO = photo(96, 120)
PHOTO[::7, ::5] = 250
FORMS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "one table set for all": {"optimize": True},
    "progressive": {"progressive": True},
    "full colour": {"subsampling": 0},
    "restarts": {"restart_marker_rows": 1},
    "progressive restarts": {"progressive": True, "restart_marker_blocks": 5},
}


def jpeg(mode: str = "RGB", **options: Any) -> bytes:
    return encoded(Image.fromarray(PHOTO).convert(mode), "JPEG", quality=90, **options)


def by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        images.decode_image(data)
    return f"{caught.value.kind}: {caught.value}"


def scans(data: bytes) -> list[int]:
    return [match.start() for match in re.finditer(b"\xff\xda", data)]


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("form", FORMS)
def test_whole_jpegs_are_what_pillow_makes_of_them(mode: str, form: str) -> None:
    data = jpeg(mode, **FORMS[form])
    np.testing.assert_array_equal(images.decode_image(data), by_pillow(data))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("form", FORMS)
def test_a_jpeg_cut_anywhere_is_refused_with_and_without_an_end_mark(mode: str, form: str) -> None:
    data = jpeg(mode, **FORMS[form])
    whole = images.decode_image(data).astype(int)
    for length in np.linspace(2, len(data) - 3, 24, dtype=int).tolist():
        assert refusal(data[:length]).split(":")[0] in {"truncated", "not_an_image"}
        try:
            found = images.decode_image(data[:length] + END)
        except ImageError:
            continue
        rows, columns = np.nonzero(np.abs(found - whole).max(axis=2) > 2)
        last = data[:length] if form.startswith("progressive") else b""
        if last:  # the last scan adds the lowest bits, of which some have not come
            assert length > scans(data)[-1]
        else:  # of the last unit a part has come
            assert rows.min(initial=96) >= 64
            assert columns.min(initial=120) >= 96


@pytest.mark.parametrize("number", range(10))
def test_a_progressive_jpeg_without_one_of_its_scans_is_refused(number: int) -> None:
    data = jpeg(progressive=True)
    starts = [*scans(data), len(data) - 2]
    assert len(starts) == 11
    assert refusal(data[: starts[number]] + data[starts[number + 1] :]).startswith("truncated")


def test_a_missing_restart_interval_is_refused() -> None:
    data = jpeg(restart_marker_rows=1)
    marks = [match.start() for match in re.finditer(b"\xff[\xd0-\xd7]", data)]
    assert len(marks) == 5
    for first, last in zip(marks, [*marks[1:], len(data) - 2], strict=True):
        assert "5 of 6 restart intervals" in refusal(data[:first] + data[last:])


def test_a_header_that_claims_more_rows_than_there_are_is_refused() -> None:
    data = jpeg()
    size = data.index(b"\xff\xc0") + 5
    assert "end early" in refusal(data[:size] + struct.pack(">H", 192) + data[size + 2 :])


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_picture_that_ends_in_grey_is_no_damage(mode: str) -> None:
    pixels = PHOTO.copy()
    pixels[60:] = 128
    data = encoded(Image.fromarray(pixels).convert(mode), "JPEG", quality=95)
    found = images.decode_image(data)
    assert (found[-4:, -4:] == 128).all()
    np.testing.assert_array_equal(found, by_pillow(data))


@pytest.mark.parametrize(
    ("code", "bits", "kind"),
    [
        (0xC0, 12, "unsupported_mode: it is a JPEG of kind SOF0 with 3 components of 12 bits"),
        (0xC3, 8, "unsupported_mode: it is a JPEG of kind SOF3"),
        (0xC9, 8, "unsupported_mode: it is a JPEG of kind SOF9"),
    ],
)
def test_kinds_that_are_not_read_say_which_are(code: int, bits: int, kind: str) -> None:
    data = bytearray(jpeg())
    place = data.index(b"\xff\xc0")
    data[place + 1], data[place + 4] = code, bits
    assert refusal(bytes(data)).startswith(kind)
    assert "read are SOF0 to SOF2" in refusal(bytes(data))


def test_inks_are_inverted_with_and_without_adobes_mark() -> None:
    """One colour, by construction: no cyan, full yellow, no black is a green-ish yellow."""
    inks = np.zeros((16, 16, 4), np.uint8)
    inks[:, :, 0], inks[:, :, 2] = 60, 255
    data = encoded(Image.fromarray(inks, "CMYK"), "JPEG", quality=100)
    mark = data.index(b"\xff\xee")
    for found in (data, data[:mark] + data[mark + 16 :]):
        decoded = images.decode_image(found).astype(int)
        assert np.abs(decoded - (195, 255, 0)).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_a_jpeg_and_what_follows_the_picture_does_not(orientation: int) -> None:
    note = b"Exif\0\0" + exif(orientation, ">")
    plain = jpeg()
    tail = b"trailing" + encoded(Image.fromarray(PHOTO[::2]), "JPEG", exif=b"Exif\0\0" + exif(5))
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="3"/>'
    for segments in ([note], [xmp, note], [note, b"Exif\0\0" + exif(2)]):
        head = b"".join(b"\xff\xe1" + struct.pack(">H", len(one) + 2) + one for one in segments)
        data = plain[:2] + head + plain[2:] + tail
        assert images.probe(data) == turned(PHOTO, orientation).shape[:2]
        np.testing.assert_array_equal(
            images.decode_image(data), turned(by_pillow(plain), orientation)
        )


def test_damaged_exif_data_turn_nothing() -> None:
    plain = jpeg()
    for note in (
        exif(9),
        exif(0),
        exif(6)[:12],
        exif(6)[:4] + b"\xff\xff\xff\xff" + exif(6)[8:],
        exif(6)[:8] + b"\xff\xff" + b"\x12\x01\x07\0" * 40,
        b"no TIFF header",
        b"",
    ):
        content = b"Exif\0\0" + note
        segment = b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content
        np.testing.assert_array_equal(
            images.decode_image(plain[:2] + segment + plain[2:]), by_pillow(plain)
        )


def test_size_and_orientation_are_known_from_the_beginning_of_a_file() -> None:
    data = encoded(Image.fromarray(PHOTO), "JPEG", exif=b"Exif\0\0" + exif(6))
    assert images.probe(data[: scans(data)[0]]) == (120, 96)
    with pytest.raises(ImageError, match="ends before the header"):
        images.probe(data[: data.index(b"\xff\xc0") + 6])
