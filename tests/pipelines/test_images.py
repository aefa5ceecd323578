from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from fcn_model.classes import ClassList
from pipelines import images
from pipelines.errors import ImageError, LabelError
from tests.support.odd_images import RAMP, encoded, photo, png

CLASSES = ClassList(names=("sky", "road", "tree"), palette=((1, 2, 3), (4, 5, 6), (7, 8, 9)))


@pytest.mark.parametrize(
    "data",
    [
        png(RAMP, 16),
        encoded(Image.fromarray(RAMP), "TIFF"),
        encoded(Image.frombytes("I;16B", (64, 16), RAMP.astype(">u2").tobytes()), "TIFF"),
        b"P5 64 16 65535\n" + RAMP.astype(">u2").tobytes(),
    ],
    ids=["png", "tiff", "tiff-big-endian", "ppm"],
)
def test_sixteen_bit_grey_keeps_its_ramp(data: bytes) -> None:
    decoded = images.decode_image(data)
    assert decoded.shape == (16, 64, 3)
    assert (decoded == decoded[:, :, :1]).all()
    np.testing.assert_array_equal(decoded[:, :, 0], RAMP >> 8)


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_values_without_a_known_scale_are_refused(kind: type) -> None:
    data = encoded(Image.fromarray(RAMP.astype(kind)), "TIFF")
    with pytest.raises(ImageError) as caught:
        images.decode_image(data)
    assert caught.value.kind == "unsupported_mode"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_pillow_would(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(Image.fromarray(photo(20, 30)), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    assert images.probe(data) == expected.shape[:2]
    assert (images.probe(data) == (30, 20)) == (orientation >= 5)
    np.testing.assert_array_equal(images.decode_image(data), expected)


@pytest.mark.parametrize("mode", ["L", "1", "CMYK", "YCbCr", "LA", "RGBA", "P"])
def test_other_modes_keep_the_picture(mode: str) -> None:
    kind = "JPEG" if mode in {"CMYK", "YCbCr"} else "PNG"
    source = Image.fromarray(photo(24, 40))
    data = encoded(source.convert(mode), kind, **({"quality": 95} if kind == "JPEG" else {}))
    expected = source.convert(mode).convert("RGB")
    difference = np.abs(images.decode_image(data).astype(int) - np.asarray(expected))
    assert difference.mean() < (3 if kind == "JPEG" else 0.01)


def test_alpha_is_dropped_and_not_blended() -> None:
    pixels = np.dstack([photo(8, 8), np.zeros((8, 8), np.uint8)])
    decoded = images.decode_image(encoded(Image.fromarray(pixels), "PNG"))
    np.testing.assert_array_equal(decoded, pixels[:, :, :3])


def test_a_palette_with_transparency_keeps_its_colours() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    decoded = images.decode_image(encoded(image, "PNG", transparency=bytes([0, 128, 255])))
    assert decoded.tolist() == [[[10, 20, 30], [40, 50, 60], [70, 80, 90]]]


def outcome(data: bytes) -> tuple[str, np.ndarray | None]:
    """The kind of error, or "whole" and the decoded image."""
    try:
        return "whole", images.decode_image(data)
    except ImageError as error:
        return error.kind, None


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_file_cut_anywhere_is_refused(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    whole = images.decode_image(data)
    for length in range(0, len(data) - 16, max(1, len(data) // 60)):
        kind, decoded = outcome(data[:length])
        assert kind in {"empty", "not_an_image", "truncated", "whole"}
        if decoded is not None:  # only what follows the pixels is missing
            np.testing.assert_array_equal(decoded, whole)


def test_a_library_that_lets_cut_images_through_is_overruled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = encoded(Image.fromarray(photo(200, 200)), "JPEG")
    with pytest.raises(ImageError, match="cut off"):
        images.decode_image(data[: len(data) // 2])


def test_the_limit_of_pixels_is_the_callers() -> None:
    data = encoded(Image.fromarray(photo(10, 10)), "PNG")
    assert images.decode_image(data, max_pixels=100).shape == (10, 10, 3)
    with pytest.raises(ImageError, match="at most 99 pixels"):
        images.decode_image(data, max_pixels=99)


def test_the_limit_of_a_side_grows_with_that_of_pixels() -> None:
    line = png(np.arange(20_000, dtype=np.uint16).astype(np.uint8)[None])
    with pytest.raises(ImageError, match=r"1x20000 pixels .* and 16384 a side are read"):
        images.decode_image(line)
    assert images.decode_image(line, max_pixels=400_000_000).shape == (1, 20_000, 3)
    with pytest.raises(ImageError, match="and 19998 a side"):
        images.decode_image(line, max_pixels=99_999_999)
    assert images.max_side(400_000_000) == 40_000
    assert images.max_side(1) == images.max_side(40_000_000) == 16_384
    assert images.decode_label(line, max_pixels=20_000).shape == (1, 20_000)


def test_threads_do_not_disturb_each_other() -> None:
    sources = [photo(30, 20 + index, seed=index) for index in range(16)]
    files = [encoded(Image.fromarray(source), "PNG") for source in sources]
    with ThreadPoolExecutor(8) as pool:
        for source, decoded in zip(
            sources * 5, pool.map(images.decode_image, files * 5), strict=True
        ):
            np.testing.assert_array_equal(decoded, source)


def test_label_ids_are_palette_indices_whatever_their_colours() -> None:
    ids = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(ids)
    image.putpalette([7, 7, 7] * 256)  # one colour: through RGB all ids would be the same
    np.testing.assert_array_equal(images.decode_label(encoded(image, "PNG")), ids)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_label_ids_of_small_palettes_are_exact(bits: int) -> None:
    ids = np.arange(64, dtype=np.uint8).reshape(8, 8) % 2**bits
    image = Image.fromarray(ids)
    image.putpalette([5, 5, 5] * 2**bits)
    data = encoded(image, "PNG", bits=bits)
    assert data[24] == bits
    np.testing.assert_array_equal(images.decode_label(data), ids)


def test_a_grey_label_is_its_ids_and_keeps_its_place_whatever_its_exif() -> None:
    ids = np.random.default_rng(0).integers(0, 256, (5, 9), dtype=np.uint8)
    exif = Image.Exif()
    exif[274] = 6
    np.testing.assert_array_equal(images.decode_label(png(ids, 8)), ids)
    turned = encoded(Image.fromarray(ids), "PNG", exif=exif)
    np.testing.assert_array_equal(images.decode_label(turned), ids)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (encoded(Image.fromarray(photo(4, 4)), "PNG"), "unsupported_mode"),
        (png(RAMP, 16), "unsupported_mode"),
        (png(np.eye(8, dtype=np.uint8), 1), "unsupported_mode"),
        (png(np.eye(8, dtype=np.uint8), 4), "unsupported_mode"),
        (encoded(Image.fromarray(photo(4, 4)).convert("L"), "JPEG"), "not_an_image"),
        (b"", "empty"),
    ],
    ids=["rgb", "16-bit", "1-bit", "4-bit", "jpeg", "empty"],
)
def test_a_label_that_is_not_exact_ids_is_refused(data: bytes, kind: str) -> None:
    with pytest.raises(ImageError) as caught:
        images.decode_label(data)
    assert caught.value.kind == kind


def test_a_wrong_id_is_named_with_its_pixels_and_what_is_allowed() -> None:
    label = np.array([[0, 1, 2, 255], [21, 21, 200, 0]], np.uint8)
    with pytest.raises(LabelError) as caught:
        images.check_label(label, CLASSES, "s3://data/a.jpg")
    assert str(caught.value) == (
        "s3://data/a.jpg: the label holds ids 21 (2 pixels), 200 (1 pixels); "
        "allowed are 0 to 2 and 255 for void"
    )
    images.check_label(label[:1], CLASSES, "s3://data/a.jpg", image_size=(1, 4))


def test_a_label_of_another_size_is_named_with_both_sizes() -> None:
    label = np.zeros((2, 3), np.uint8)
    with pytest.raises(LabelError, match=r"a\.jpg: the label is 2x3 .* 4x5"):
        images.check_label(label, CLASSES, "a.jpg", image_size=(4, 5))
    with pytest.raises(LabelError, match="drawn on the unrotated image"):
        images.check_label(label, CLASSES, "a.jpg", image_size=(3, 2))


@pytest.mark.parametrize(("classes", "void_id"), [(1, 1), (3, 255), (11, 11), (21, 255), (256, 0)])
def test_masks_and_labels_survive_their_png(classes: int, void_id: int) -> None:
    if classes == 256:
        classes, void_id = 255, 255
    listed = ClassList(names=tuple(f"c{index}" for index in range(classes)), void_id=void_id)
    mask = np.random.default_rng(classes).integers(0, classes, (17, 13), dtype=np.uint8)
    label = mask.copy()
    label[0] = void_id
    np.testing.assert_array_equal(images.decode_label(images.encode_mask(mask, listed)), mask)
    data = images.encode_label(label, listed)
    np.testing.assert_array_equal(images.decode_label(data), label)
    with Image.open(io.BytesIO(data)) as image:
        colors = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(colors[1:], np.array(listed.palette, np.uint8)[mask[1:]])
    assert (colors[0] == images.VOID_COLOR).all()


def test_what_is_no_mask_is_not_written() -> None:
    with pytest.raises(LabelError, match="holds id 255; allowed are 0 to 2"):
        images.encode_mask(np.full((2, 2), 255, np.uint8), CLASSES)
    with pytest.raises(LabelError, match=r"ids 3 \(4 pixels\)"):
        images.encode_label(np.full((2, 2), 3, np.uint8), CLASSES)
    with pytest.raises(ValueError, match="int64"):
        images.encode_mask(np.zeros((2, 2), np.int64), CLASSES)
