"""GIF, WebP, JPEG 2000 and PNM, and files that are no image at all."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from pipelines import images
from pipelines.errors import ImageError
from tests.support.odd_images import RAMP, encoded, exif, gif, photo, turned

COLORS = [(value, 255 - value, 3) for value in range(256)]
KINDS = {"not_an_image", "truncated", "too_large", "unsupported_mode", "hostile"}
INDICES = np.arange(32, dtype=np.uint8).reshape(4, 8)


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        images.decode_image(data)
    return f"{caught.value.kind}: {caught.value}"


def test_the_first_frame_of_a_gif_lies_on_its_whole_canvas() -> None:
    colors = np.array(COLORS, np.uint8)
    other = ((0, 0), np.full((4, 8), 99, np.uint8))
    whole = gif((4, 8), [((0, 0), INDICES), other], COLORS)
    np.testing.assert_array_equal(images.decode_image(whole), colors[INDICES])
    for transparent, around in ((None, 0), (5, 5)):
        part = gif((6, 12), [((1, 3), INDICES), other], COLORS, transparent=transparent)
        canvas = np.full((6, 12), around)
        canvas[1:5, 3:11] = INDICES
        assert images.probe(part) == (6, 12)
        np.testing.assert_array_equal(images.decode_image(part), colors[canvas])


def test_gifs_that_lack_pixels_or_colors_are_refused() -> None:
    few = gif((4, 8), [((0, 0), INDICES)], COLORS[:16])
    assert refusal(few) == "truncated: a pixel has colour 31 of a palette of 16"
    short = bytearray(gif((4, 8), [((0, 0), INDICES[:2])], COLORS))
    place = short.rindex(b",")
    short[place + 7 : place + 9] = struct.pack("<H", 4)  # the frame claims four rows
    assert refusal(bytes(short)).startswith("truncated")
    far = gif((4, 8), [((60000, 60000), INDICES)], COLORS)
    assert refusal(far).startswith("too_large: 60004x60008 pixels")


@pytest.mark.parametrize("lossless", [True, False])
def test_webps_are_whole_or_refused_and_turned_by_exif(lossless: bool) -> None:
    pixels = photo(20, 30)
    plain = encoded(Image.fromarray(pixels), "WEBP", lossless=lossless)
    with Image.open(io.BytesIO(plain)) as opened:
        expected = np.asarray(opened)
    np.testing.assert_array_equal(images.decode_image(plain + b"behind it"), expected)
    assert not lossless or (expected == pixels).all()
    for orientation in range(1, 9):
        noted = encoded(
            Image.fromarray(pixels), "WEBP", lossless=lossless, exif=exif(orientation, ">")
        )
        assert images.probe(noted) == turned(pixels, orientation).shape[:2]
        np.testing.assert_array_equal(images.decode_image(noted), turned(expected, orientation))
    for length in range(12, len(plain), 7):
        assert refusal(plain[:length]).split(":")[0] in {"truncated", "not_an_image"}
        if length > 30:  # cut, and made to claim no more than there is
            claims = struct.pack("<I", length - 8) + plain[8:16] + struct.pack("<I", length - 20)
            assert refusal(plain[:4] + claims + plain[20:length]).startswith("truncated")


def test_the_first_frame_of_a_webp_and_colors_under_transparency_count() -> None:
    for alpha in (0, 255):
        pixels = np.dstack([photo(9, 11), np.full((9, 11), alpha, np.uint8)])
        more = {"save_all": True, "append_images": [Image.fromarray(255 - pixels)]}
        for options in ({}, more if alpha else {}):
            data = encoded(Image.fromarray(pixels), "WEBP", lossless=True, exact=True, **options)
            np.testing.assert_array_equal(images.decode_image(data), pixels[:, :, :3])


def jpeg2000(values: np.ndarray, **siz: int) -> bytes:
    """Written by Pillow without loss; ``siz`` overwrites fields of the codestream's header."""
    data = bytearray(encoded(Image.fromarray(values), "JPEG2000"))
    place = data.index(b"\xff\x4f\xff\x51") + 8
    for name, value in siz.items():
        if name == "depth":
            for channel in range(3 if values.ndim == 3 else 1):
                data[place + 34 + 3 * channel] = value
        else:
            offset = ["right", "bottom", "left", "top", "across", "down"].index(name)
            struct.pack_into(">I", data, place + 4 * offset, value)
    return bytes(data)


def sized(data: bytes, height: int, width: int) -> bytes:
    """With another size in the outer header, which stands before the codestream."""
    place = data.index(b"ihdr") + 4
    return data[:place] + struct.pack(">II", height, width) + data[place + 8 :]


def test_jpeg_2000_of_more_than_eight_bits_is_scaled_or_refused() -> None:
    found = images.decode_image(jpeg2000(RAMP))
    np.testing.assert_array_equal(found, (RAMP >> 8)[:, :, None].repeat(3, 2))
    twelve = RAMP >> 4
    # The codestream holds differences from the middle, which 12 bits have elsewhere than 16.
    shifted = (twelve.astype(int) + (1 << 15) - (1 << 11)).astype(np.uint16)
    found = images.decode_image(jpeg2000(shifted, depth=11))
    np.testing.assert_array_equal(found[:, :, 0], RAMP >> 8)
    assert "none of its 16-bit values" in refusal(jpeg2000(twelve))
    assert "signed" in refusal(jpeg2000(RAMP, depth=0x80 | 15))


def test_jpeg_2000_whose_headers_or_tiles_disagree_is_refused() -> None:
    pixels = photo(40, 60)
    data = jpeg2000(pixels)
    np.testing.assert_array_equal(images.decode_image(data + b"behind it"), pixels)
    assert "claim 40x60 and 40x61" in refusal(jpeg2000(pixels, right=61))
    assert "truncated: 1 of its 4 tiles" in refusal(
        sized(jpeg2000(pixels, right=120, bottom=80), 80, 120)
    )
    many = sized(jpeg2000(pixels, right=5000, bottom=5000, across=40, down=40), 5000, 5000)
    assert refusal(many).startswith("hostile: it has 15625 tiles")
    for length in range(100, len(data), len(data) // 20):
        assert refusal(data[:length]).startswith("truncated")


@pytest.mark.parametrize("largest", [1, 100, 255, 1023, 4095, 65535])
@pytest.mark.parametrize("mark", [b"P5", b"P6"])
def test_pnm_values_are_shares_of_the_largest(largest: int, mark: bytes) -> None:
    channels = 3 if mark == b"P6" else 1
    shares = np.linspace(0, 1, 24 * channels).reshape(4, 6, channels)
    values = np.rint(shares * largest)
    stored = values.astype(">u2" if largest > 255 else np.uint8).tobytes()
    data = mark + b" # size\n6 4 # and scale\n#\n%d\n" % largest + stored
    found = images.decode_image(data + b"behind it")
    assert found.shape == (4, 6, 3)
    np.testing.assert_allclose(found, np.broadcast_to(values / largest * 255, found.shape), atol=1)
    for value, end in ((0, 0), (largest, 255)):
        assert (found[np.broadcast_to(values == value, found.shape)] == end).all()
    assert refusal(data[:-1]).startswith("truncated")


@pytest.mark.parametrize(
    "data", [b"P5 0 4 15\n", b"P5 4 4", b"P5 #", b"P5 4 -4 15\n\0", b"P5 4 4 70000\n" + bytes(32)]
)
def test_pnm_headers_that_make_no_sense_are_refused(data: bytes) -> None:
    assert refusal(data).split(":")[0] in {"not_an_image", "truncated"}


def test_floats_are_refused() -> None:
    assert refusal(b"Pf 2 1 -1.0\n" + bytes(8)).startswith("unsupported_mode")


@pytest.mark.parametrize(
    ("start", "looks"),
    [
        (b"%PDF-1.7", "a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "a PostScript file"),
        (b"8BPS\0\1", "a Photoshop file"),
        (b"\0\0\1\0\1\0\x10\x10", "an icon"),
        (b"<svg xmlns=", "an SVG drawing"),
        (b"<!DOCTYPE html>", "a web page"),
        (b"PK\3\4", "a zip archive"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer to Git LFS"),
        (b"\0\0\0\x20ftypavif", "an AVIF image"),
        (b"\0\0\0\x20ftypheic", "a HEIC photograph"),
        (b"\0\0\0\x20ftypmp42", "a film"),
        (b"\xef\xbb\xbf\xff\xd8\xff\xe0", "a byte order mark"),
        (b"\1\2\3\4", "starts with b'\\x01\\x02\\x03\\x04"),
    ],
)
def test_what_is_no_image_is_named_with_the_formats_that_are_read(start: bytes, looks: str) -> None:
    text = refusal(start + b" and so on")
    assert text.startswith("not_an_image: no JPEG, PNG, WEBP, BMP, TIFF, GIF, PPM, JPEG2000 file")
    assert looks in text


def test_a_label_in_another_format_is_told_which_is_wanted() -> None:
    with pytest.raises(ImageError, match=r"no PNG file; .* looks like a GIF image"):
        images.decode_label(gif((4, 8), [((0, 0), INDICES)], COLORS))


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "MPO"]
)
def test_whatever_is_damaged_is_an_image_of_its_size_or_an_error_of_a_kind(kind: str) -> None:
    image = Image.fromarray(photo(24, 40))
    options = {"save_all": True, "append_images": [image.rotate(180)]} if kind == "MPO" else {}
    good = encoded(image, kind, **options)
    random, kinds = np.random.default_rng(9), set()
    for _ in range(120):
        data = bytearray(good)
        end = min(300, len(data)) if random.random() < 0.7 else len(data)
        data[random.integers(end)] = random.integers(256)
        try:
            size = images.decode_image(bytes(data)).shape[:2]
        except ImageError as error:
            kinds.add(error.kind)
        else:
            assert size == images.probe(bytes(data))
    assert kinds <= KINDS
