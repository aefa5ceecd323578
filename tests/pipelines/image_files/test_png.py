"""PNGs written by hand: what they hold is known, and so is what is wrong with them."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from pipelines import images
from pipelines.errors import ImageError
from tests.support.odd_images import RAMP, chunk, exif, photo, png, rows_of, turned

GREY = np.arange(7, 7 + 5 * 9, dtype=np.uint8).reshape(5, 9)
DEEP = np.stack([RAMP, RAMP[::-1], 65535 - RAMP], axis=2)
PALETTE = chunk(b"PLTE", bytes(range(1, 13)))


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        images.decode_image(data)
    return f"{caught.value.kind}: {caught.value}"


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_become_their_upper_eight(channels: int) -> None:
    values = np.dstack([DEEP, np.zeros_like(RAMP)])[
        :, :, [[0], [0, 3], [0, 1, 2], [0, 1, 2, 3]][channels - 1]
    ]
    colors = values[:, :, :3] if channels > 2 else values[:, :, :1].repeat(3, axis=2)
    np.testing.assert_array_equal(images.decode_image(png(values, 16)), colors >> 8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("shift", [4, 6, 8])
def test_fewer_bits_stored_in_sixteen_are_refused_and_not_black(channels: int, shift: int) -> None:
    values = np.repeat((RAMP >> shift)[:, :, None], channels, axis=2)
    assert refusal(png(values, 16)).startswith("unsupported_mode: none of its 16-bit values")


def test_a_black_deep_grey_image_is_black() -> None:
    assert not images.decode_image(png(np.zeros((3, 4)), 16)).any()


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_small_greys_span_black_to_white_and_small_palettes_name_colors(bits: int) -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4) % min(4, 2**bits)
    grey = images.decode_image(png(values, bits, color=0))
    np.testing.assert_array_equal(grey, (values * (255 // (2**bits - 1)))[:, :, None].repeat(3, 2))
    colors = np.arange(1, 13, dtype=np.uint8).reshape(4, 3)
    found = images.decode_image(png(values, bits, color=3, before=PALETTE))
    np.testing.assert_array_equal(found, colors[values])


@pytest.mark.parametrize("trns", [b"\0\x80\xff", b"\0", b"\xff\0\xff\xff"])
def test_transparency_in_a_palette_changes_no_color(trns: bytes) -> None:
    values = np.array([[0, 1, 2, 3]], np.uint8)
    found = images.decode_image(png(values, color=3, before=PALETTE + chunk(b"tRNS", trns)))
    np.testing.assert_array_equal(found[0], np.arange(1, 13).reshape(4, 3))


def test_every_missing_or_damaged_part_of_the_pixels_is_named() -> None:
    good = png(GREY)
    np.testing.assert_array_equal(images.decode_image(good)[:, :, 0], GREY)
    place = good.index(b"IDAT")
    for offset in range(place, len(good) - 12):
        flipped = bytearray(good)
        flipped[offset] ^= 1
        assert refusal(bytes(flipped)).startswith("truncated")
    cases = {
        "pixels end early: 20 bytes of 50": png(GREY, pixels=zlib.compress(rows_of(GREY[:2], 8))),
        "has no pixels": good[: place - 4] + chunk(b"IEND", b""),
        "palette is missing": png(GREY, color=3),
        "colour 51 of a palette of 4": png(GREY, color=3, before=PALETTE),
        "cut off at byte 70": good[:70],
        "claims 0x9 pixels": png(GREY, size=(0, 9)),
        "colour type 5 of 8 bits": png(GREY, color=5),
    }
    for text, data in cases.items():
        assert text in refusal(data)


def test_an_interlaced_file_with_a_pass_missing_is_refused() -> None:
    rows = [GREY[::8, ::8], GREY[::8, 4::8], GREY[4::8, ::4], GREY[::4, 2::4], GREY[2::4, ::2]]
    rows += [GREY[::2, 1::2], GREY[1::2]]
    passes = [rows_of(part, 8) for part in rows]

    def interlaced(parts: list[bytes]) -> bytes:
        header = struct.pack(">IIBBBBB", 9, 5, 8, 0, 0, 0, 1)
        body = chunk(b"IDAT", zlib.compress(b"".join(parts)))
        return png(GREY)[:8] + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")

    np.testing.assert_array_equal(images.decode_image(interlaced(passes))[:, :, 0], GREY)
    for count in range(7):
        assert refusal(interlaced(passes[:count])).startswith("truncated")


def test_what_is_no_pixel_neither_matters_nor_costs() -> None:
    """Texts and profiles that unpack to much, gamma, significant bits, animation, a bad note."""
    bomb = zlib.compress(bytes(4 << 20))
    aside = [
        *(chunk(b"zTXt", b"n%d\0\0" % number + bomb) for number in range(80)),
        chunk(b"iTXt", b"n\0\1\0\0\0" + bomb),
        chunk(b"iCCP", b"p\0\0" + bomb),
        chunk(b"gAMA", struct.pack(">I", 220_000)),
        chunk(b"sBIT", b"\5"),
        chunk(b"tEXt", b"a\0b")[:-1] + b"\0",
        chunk(b"acTL", struct.pack(">II", 2, 0)),
        chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 2, 2, 1, 1, 1, 1, 1, 0)),
    ]
    data = png(GREY, before=b"".join(aside))
    np.testing.assert_array_equal(images.decode_image(data)[:, :, 0], GREY)
    data = png(GREY)[:-12] + b"".join(aside) + b"what follows the picture"
    np.testing.assert_array_equal(images.decode_image(data)[:, :, 0], GREY)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_counts_before_and_behind_the_pixels_and_xmp_nowhere(
    orientation: int, order: str
) -> None:
    pixels = photo(4, 6)
    note = chunk(b"eXIf", exif(orientation, order))
    xmp = chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="3"/>')
    for data in (png(pixels, before=xmp + note), png(pixels)[:-12] + note + png(pixels)[-12:]):
        assert images.probe(data) == turned(pixels, orientation).shape[:2]
        np.testing.assert_array_equal(images.decode_image(data), turned(pixels, orientation))
    np.testing.assert_array_equal(images.decode_image(png(pixels, before=xmp)), pixels)


def test_a_label_with_a_flipped_bit_is_refused() -> None:
    """A mask's or label's PNG is small, and decoders take half of all flips for pixels."""
    good = png(GREY)
    for offset in range(8, len(good) - 12):
        for bit in (1, 128):
            flipped = bytearray(good)
            flipped[offset] ^= bit
            with pytest.raises(ImageError):
                images.decode_label(bytes(flipped))
