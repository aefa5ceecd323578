from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import fcn_model
from fcn_model import ClassList, ModelConfig, Segmenter, checkpoint, load_segmenter
from fcn_model.normalize import TORCHVISION
from fcn_model.spec import BackboneName
from tests.support.networks import random_network

Image = NDArray[np.uint8]
SIZES = [(40, 33), (1, 1), (64, 64), (33, 64), (40, 33), (17, 100), (50, 41)]


def images_of(sizes: list[tuple[int, int]]) -> list[Image]:
    """Patches of colour under noise, so that masks hold several classes."""
    rng = np.random.default_rng(0)
    images = []
    for height, width in sizes:
        patches = rng.integers(0, 192, (height // 16 + 1, width // 16 + 1, 3))
        colors = patches.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
        images.append((colors + rng.integers(0, 64, colors.shape)).astype(np.uint8))
    return images


def segmenter(**options: Any) -> Segmenter:
    network = random_network()
    classes = ClassList(names=("a", "b", "c", "d", "e"))
    config = ModelConfig(spec=network.spec, classes=classes, normalization=TORCHVISION)
    return Segmenter(network, config, device="cpu", **options)


@torch.inference_mode()
def test_a_mask_is_the_argmax_of_the_normalized_image() -> None:
    image = images_of([(40, 33)])[0]
    mask = segmenter()(image)
    expected = random_network()(TORCHVISION(image)[None])[0].argmax(0).numpy()
    assert mask.dtype == np.uint8
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(mask, expected)


def test_an_images_mask_is_the_same_whatever_its_batch_mates() -> None:
    one, images = segmenter(), images_of(SIZES)
    alone = [one(image) for image in images]
    assert [mask.shape for mask in alone] == SIZES
    order = [3, 6, 0, 2, 5, 1, 4]
    together = dict(zip(order, one.batch([images[index] for index in order]), strict=True))
    with_others = one.batch([images[6], images[2]])
    for index, mask in enumerate(alone):
        np.testing.assert_array_equal(together[index], mask)
    np.testing.assert_array_equal(with_others[0], alone[6])
    np.testing.assert_array_equal(with_others[1], alone[2])


def test_batches_hold_images_of_one_bucket_within_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = segmenter(batch_pixels=2 * (64 + 198) ** 2)
    runs: list[tuple[int, ...]] = []
    run = one.network.forward

    def spy(images: torch.Tensor, sizes: list[tuple[int, int]]) -> torch.Tensor:
        runs.append(tuple(images.shape))
        return run(images, sizes)

    monkeypatch.setattr(one.network, "forward", spy)
    one.batch(images_of([(64, 64), (300, 300), (40, 33), (50, 41), (64, 65)]))
    # (64, 64) twice, then the third of that bucket; the large one exceeds the budget by itself.
    assert runs == [(2, 3, 64, 64), (1, 3, 50, 41), (1, 3, 300, 300), (1, 3, 64, 65)]


def test_views_and_read_only_images_are_taken() -> None:
    one, image = segmenter(), images_of([(20, 24)])[0]
    frozen = image.copy()
    frozen.flags.writeable = False
    bgr = image[..., ::-1].copy()
    np.testing.assert_array_equal(one(frozen), one(image))
    np.testing.assert_array_equal(one(bgr[..., ::-1]), one(image))


@pytest.mark.parametrize("backbone", get_args(BackboneName))
def test_bfloat16_gives_nearly_the_same_masks_and_leaves_the_network_alone(
    backbone: BackboneName,
) -> None:
    network = random_network(backbone=backbone)
    config = ModelConfig(
        spec=network.spec,
        classes=ClassList(names=("a", "b", "c", "d", "e")),
        normalization=TORCHVISION,
    )
    half = Segmenter(network, config, device="cpu", precision="bf16")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    images = images_of([(64, 64), (40, 33)])
    exact = Segmenter(network, config, device="cpu").batch(images)
    for coarse, fine in zip(half.batch(images), exact, strict=True):
        assert (coarse == fine).mean() > 0.95


def test_two_lines_turn_an_image_into_a_mask(tmp_path: Path) -> None:
    original = segmenter()
    checkpoint.save(tmp_path, original.network, original.config)
    image = images_of([(30, 20)])[0]
    mask = load_segmenter(str(tmp_path), device="cpu")(image)
    np.testing.assert_array_equal(mask, original(image))


def test_no_images_give_no_masks() -> None:
    assert segmenter().batch([]) == []


@pytest.mark.parametrize(
    ("image", "came"),
    [
        (np.zeros((4, 4, 3)), r"float64 \(4, 4, 3\)"),
        (np.zeros((4, 4), np.uint8), r"uint8 \(4, 4\)"),
        (np.zeros((3, 4, 4), np.uint8), r"uint8 \(3, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \(0, 4, 3\)"),
        ("image.png", "str"),
    ],
)
def test_anything_but_an_rgb_image_is_refused_by_its_place(image: Any, came: str) -> None:
    good = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match=rf"image 1 must be a \(H, W, 3\) uint8 RGB.*got {came}"):
        segmenter().batch([good, image])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"precision": "fp16"}, "'fp32' or 'bf16', got 'fp16'"), ({"batch_pixels": 0}, "got 0")],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        segmenter(**options)


def test_the_public_names_are_these() -> None:
    assert sorted(fcn_model.__all__) == [
        "ClassList",
        "Confusion",
        "FCN",
        "ModelConfig",
        "NetworkSpec",
        "Normalization",
        "Segmenter",
        "build",
        "load_segmenter",
    ]
