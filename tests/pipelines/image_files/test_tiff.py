"""TIFFs written by hand, of layouts that Pillow takes for others or fills up with black."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from pipelines import images
from pipelines.errors import ImageError
from tests.support.odd_images import RAMP, encoded, photo, tiff, turned

SIZE = (16, 64)
GREY = (RAMP >> 8).astype(np.uint8)
SEPARATE = (284, 3, [2])
DEFLATE = (259, 3, [8])


def refusal(data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        images.decode_image(data)
    return f"{caught.value.kind}: {caught.value}"


def grey_of(data: bytes) -> np.ndarray:
    decoded = images.decode_image(data)
    assert (decoded == decoded[:, :, :1]).all()
    return decoded[:, :, 0]


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bits_become_their_upper_eight(order: str) -> None:
    values = np.stack([RAMP, RAMP[::-1], 65535 - RAMP], axis=2)
    stored = values.astype(f"{order}u2").tobytes()
    data = tiff([stored], SIZE, bits=(16,) * 3, photometric=2, order=order)
    np.testing.assert_array_equal(images.decode_image(data), values >> 8)
    packed = tiff(
        [zlib.compress(stored)], SIZE, bits=(16,) * 3, photometric=2, order=order, more=[DEFLATE]
    )
    np.testing.assert_array_equal(images.decode_image(packed), values >> 8)
    stored = RAMP.astype(f"{order}u2").tobytes()
    np.testing.assert_array_equal(grey_of(tiff([stored], SIZE, bits=[16], order=order)), RAMP >> 8)


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("packed", [False, True])
def test_white_may_be_zero(bits: int, packed: bool) -> None:
    values = RAMP >> (16 - bits)
    if bits < 8:
        digits = np.unpackbits(values.astype(np.uint8)[:, :, None], axis=2)[:, :, 8 - bits :]
        stored = np.packbits(digits.reshape(16, -1), axis=1).tobytes()
    else:
        stored = values.astype("<u2" if bits == 16 else np.uint8).tobytes()
    strips, more = ([zlib.compress(stored)], [DEFLATE]) if packed else ([stored], [])
    black = grey_of(tiff(strips, SIZE, bits=[bits], photometric=1, more=more))
    white = grey_of(tiff(strips, SIZE, bits=[bits], photometric=0, more=more))
    scale = 255 / (2**bits - 1)
    np.testing.assert_allclose(black, values * scale, atol=1)
    np.testing.assert_array_equal(white, 255 - black)


def test_twelve_bits_in_twelve_are_scaled_and_in_sixteen_refused() -> None:
    values = RAMP >> 4
    digits = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(*SIZE, 2), axis=2)
    packed = np.packbits(digits[:, :, 4:].reshape(16, -1), axis=1).tobytes()
    np.testing.assert_array_equal(grey_of(tiff([packed], SIZE, bits=[12])), RAMP >> 8)
    data = tiff([values.astype("<u2").tobytes()], SIZE, bits=[16])
    assert "none of its 16-bit values reaches 4096" in refusal(data)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("kind", "form"),
    [("i1", 2), ("i2", 2), ("i4", 2), ("u4", 1), ("f2", 3), ("f4", 3), ("f8", 3), ("c8", 6)],
)
def test_values_without_a_known_scale_are_refused(order: str, kind: str, form: int) -> None:
    dtype = np.dtype(order + kind)
    stored = GREY.astype(dtype).tobytes()
    more = [(339, 3, [form])]
    data = tiff([stored], SIZE, bits=[8 * dtype.itemsize], order=order, more=more)
    assert refusal(data).startswith("unsupported_mode")


def test_planes_are_read_where_pillow_reads_them() -> None:
    values = photo(*SIZE)
    planes = [values[:, :, index].tobytes() for index in range(3)]
    data = tiff(planes, SIZE, bits=(8,) * 3, photometric=2, more=[SEPARATE])
    np.testing.assert_array_equal(images.decode_image(data), values)
    deep = [(values[:, :, index].astype("<u2") * 256).tobytes() for index in range(3)]
    data = tiff(deep, SIZE, bits=(16,) * 3, photometric=2, more=[SEPARATE])
    assert "unsupported_mode: the TIFF has uncompressed planes of 16 bits" in refusal(data)
    packed = [zlib.compress(plane) for plane in deep]
    data = tiff(packed, SIZE, bits=(16,) * 3, photometric=2, more=[SEPARATE, DEFLATE])
    np.testing.assert_array_equal(images.decode_image(data), values)
    data = tiff(planes[:2], SIZE, bits=(8,) * 3, photometric=2, more=[SEPARATE])
    assert "truncated: 2 of its 3 strips" in refusal(data)


def test_strips_that_are_missing_short_or_elsewhere_are_named() -> None:
    strips = [row.tobytes() for row in GREY]
    np.testing.assert_array_equal(grey_of(tiff(strips, SIZE, rows_per_strip=1)), GREY)
    assert "9 of its 16 strips" in refusal(tiff(strips[:9], SIZE, rows_per_strip=1))
    short = [strip[:-1] for strip in strips]
    assert "1008 bytes, too few" in refusal(tiff(short, SIZE, rows_per_strip=1))
    whole = tiff(strips, SIZE, rows_per_strip=1)
    assert "ends at byte" in refusal(whole[:-1])
    packed = zlib.compress(GREY.tobytes())
    assert "truncated" in refusal(tiff([packed[:-40]], SIZE, more=[DEFLATE]))


@pytest.mark.parametrize(
    "compression", ["tiff_lzw", "tiff_deflate", "packbits", "jpeg", "zstd", "lzma"]
)
def test_a_compressed_file_cut_anywhere_is_refused(compression: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "TIFF", compression=compression, strip_size=4096)
    whole = images.decode_image(data)
    assert np.abs(whole.astype(int) - noise).max() <= (255 if compression == "jpeg" else 0)
    with Image.open(io.BytesIO(data)) as opened:
        sizes = opened.tag_v2[279]  # type: ignore[attr-defined]
    assert len(sizes) > 1
    width = 2 if max(sizes) < 65536 and struct.pack(f"<{len(sizes)}H", *sizes) in data else 4
    listed = struct.pack(f"<{len(sizes)}{'H' if width == 2 else 'I'}", *sizes)
    claims = listed[:-width] + (sizes[-1] // 2).to_bytes(width, "little")
    assert data.count(listed) == 1
    assert refusal(data.replace(listed, claims)).startswith("truncated")
    for cut in (1, 100, len(data) // 2):
        assert refusal(data[:-cut]).startswith("truncated")


def test_palettes_are_of_sixteen_bits_and_others_refused() -> None:
    colors: list[int] = [*range(255, -1, -1), *range(256), *([7] * 256)]
    deep = (320, 3, [257 * value for value in colors])
    found = images.decode_image(tiff([GREY.tobytes()], SIZE, photometric=3, more=[deep]))
    np.testing.assert_array_equal(found, np.stack([255 - GREY, GREY, np.full_like(GREY, 7)], 2))
    flat = (320, 3, colors)
    data = tiff([GREY.tobytes()], SIZE, photometric=3, more=[flat])
    assert "a palette of 8-bit values" in refusal(data)


def test_uncompressed_chroma_of_other_sizes_is_refused() -> None:
    data = tiff([bytes(16 * 64 * 3)], SIZE, bits=(8,) * 3, photometric=6, more=[(530, 3, [2, 2])])
    assert "uncompressed YCbCr with subsampling" in refusal(data)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_tag_274_and_nothing_else(orientation: int) -> None:
    xmp = (700, 1, list(b'<x tiff:Orientation="3"/>'))
    stored = photo(5, 7)

    def made(more: Sequence[tuple[int, int, Sequence[int]]]) -> bytes:
        return tiff([stored.tobytes()], (5, 7), bits=(8,) * 3, photometric=2, more=more)

    data = made([(274, 3, [orientation]), xmp])
    assert images.probe(data) == turned(stored, orientation).shape[:2]
    np.testing.assert_array_equal(images.decode_image(data), turned(stored, orientation))
    assert images.probe(made([xmp])) == (5, 7)
    np.testing.assert_array_equal(images.decode_image(made([xmp])), stored)


def test_the_first_page_counts_whatever_size_the_others_have() -> None:
    pages = [Image.fromarray(photo(8, 12)), Image.fromarray(photo(30, 9)[:, :, 0])]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(images.decode_image(data), photo(8, 12))


def test_directories_that_loop_end() -> None:
    data = bytearray(tiff([GREY.tobytes()], SIZE, more=[(34665, 4, [8]), (330, 4, [8])]))
    (count,) = struct.unpack_from("<H", data, 8)
    struct.pack_into("<I", data, 10 + 12 * count, 8)  # the next directory is this one
    np.testing.assert_array_equal(grey_of(bytes(data)), GREY)
