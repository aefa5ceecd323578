from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import fcn_model
from fcn_model import (
    FCN,
    ClassList,
    ModelConfig,
    Segmenter,
    build,
    checkpoint,
    load_segmenter,
)
from fcn_model.losses import summed_cross_entropy
from fcn_model.normalize import NYUD_DEPTH, TORCHVISION, Normalization
from fcn_model.spec import BackboneName, Head, Stream
from fcn_model.tile_plans import tile_plan
from tests.support.networks import narrow_spec, random_network

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


def config_of(network: FCN) -> ModelConfig:
    classes = ClassList(names=tuple("abcdefg"[: network.spec.num_classes]))
    return ModelConfig(spec=network.spec, classes=classes, normalization=TORCHVISION)


def segmenter(network: FCN | None = None, **options: Any) -> Segmenter:
    network = random_network() if network is None else network
    return Segmenter(network, config_of(network), device="cpu", **options)


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
    run = one.network.coarse

    def spy(images: torch.Tensor, *others: Any, **more: Any) -> torch.Tensor:
        runs.append(tuple(images.shape))
        return run(images, *others, **more)

    monkeypatch.setattr(one.network, "coarse", spy)
    one.batch(images_of([(64, 64), (300, 300), (40, 33), (50, 41), (64, 65)]))
    # The largest first, which exceeds the budget by itself; then the bucket of three in two parts.
    assert runs == [(1, 3, 300, 300), (2, 3, 50, 41), (1, 3, 64, 65), (1, 3, 64, 64)]


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
    half = segmenter(network, precision="bf16")
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    images = images_of([(64, 64), (40, 33)])
    exact = segmenter(network).batch(images)
    for coarse, fine in zip(half.batch(images), exact, strict=True):
        assert (np.asarray(coarse) == np.asarray(fine)).mean() > 0.95


@torch.inference_mode()
def scores_of(one: Segmenter, image: Image) -> NDArray[np.float32]:
    dtype = next(one.network.parameters()).dtype
    return one.network(TORCHVISION(image)[None].to(dtype))[0].numpy()


@torch.no_grad()
def balanced(network: FCN, input_CHW: torch.Tensor) -> FCN:
    """Every class the best at some pixel: the mean score of each becomes the same."""
    means = network(input_CHW[None]).mean((0, 2, 3))
    for stream in network.spec.streams:
        network.get_parameter(f"score_fr{stream.name}.bias").sub_(means)
    return network


def patches(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    """Labels 0 to 2 in patches of 32 x 32."""
    labels = torch.randint(0, 3, (rows, columns), generator=generator)
    return labels.repeat_interleave(32, 0).repeat_interleave(32, 1)


def painted(labels: torch.Tensor) -> Image:
    """A picture of labels: the channel that each names is bright."""
    return (124 + 131 * torch.nn.functional.one_hot(labels, 3)).numpy().astype(np.uint8)


def trained(generator: torch.Generator) -> FCN:
    """A few steps towards the labels of painted patches."""
    network = build(narrow_spec("fcn8s", 3)).eval()
    optimizer = torch.optim.Adam(network.parameters(), 6e-3)
    for _ in range(18):
        labels = patches(2, 2, generator)
        scores = network(TORCHVISION(painted(labels))[None])
        loss = summed_cross_entropy(scores, labels[None], 255).mean() / labels.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def ties_only(one: Segmenter, image: Image, tiled: Image, whole: Image, margin: float) -> None:
    """Where two masks differ, the two best classes differ by less than ``margin`` of the range."""
    scores = scores_of(one, image)
    second, first = np.sort(scores, axis=0)[-2:]
    differing = (first - second)[tiled != whole] / np.ptp(scores)
    assert tiled.shape == whole.shape == image.shape[:2]
    assert (differing < margin).all(), differing.max()
    assert differing.size <= whole.size / 1000
    # The masks say something: no class fills them, and hardly any pixel is near a tie itself.
    assert np.bincount(whole.ravel()).max() < 0.95 * whole.size
    assert ((first - second) / np.ptp(scores) > margin).mean() > 0.8


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("head", "backbone", "size"),
    [
        ("fcn8s", "vgg16", (397, 301)),
        ("fcn32s", "vgg16", (3, 420)),
        ("fcn16s", "caffenet", (331, 207)),
        ("fcn8s", "alexnet", (207, 331)),
        ("fcn8s", "googlenet", (1, 700)),
        ("fcn16s", "googlenet_bn", (349, 263)),
    ],
)
def test_a_mask_by_tiles_is_the_mask_of_the_whole(
    head: Head, backbone: BackboneName, size: tuple[int, int], precision: str
) -> None:
    (image,) = images_of([size])
    network = balanced(random_network(head, backbone=backbone), TORCHVISION(image))
    plan = tile_plan(network.spec, size, 1)
    whole = segmenter(network, precision=precision)
    tiled = segmenter(network, precision=precision, tile_pixels=int(plan.pixels * 1.2))
    assert plan.count >= 3
    margin = 1e-4 if precision == "fp32" else 1e-2
    ties_only(whole, image, tiled(image), whole(image), margin)


def test_a_trained_networks_mask_by_tiles_is_the_mask_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    network = trained(generator)
    image = painted(patches(12, 14, generator))[:-13, :-7]
    whole, tiled = segmenter(network), segmenter(network, tile_pixels=270_000)
    ties_only(whole, image, tiled(image), whole(image), 1e-4)


def test_planes_are_cut_with_their_image_and_only_windows_are_normalized(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    streams = (Stream("color", 3), Stream("depth", 1))
    network = random_network("fcn32s", backbone="caffenet", streams=streams)
    config = ModelConfig(
        spec=network.spec,
        classes=ClassList(names=tuple("abcde")),
        normalization=TORCHVISION,
        planes=(("depth", NYUD_DEPTH),),
    )
    size = (40, 500)
    (image,) = images_of([size])
    image.flags.writeable = False
    depth = np.random.default_rng(1).integers(0, 2**16, size).astype(np.uint16)[::-1]
    balanced(network, torch.cat([TORCHVISION(image), NYUD_DEPTH(depth)]))
    whole = Segmenter(network, config, device="cpu")(image, depth=depth)
    seen: list[tuple[int, ...]] = []
    normalize = Normalization.__call__

    def spy(self: Normalization, pixels: NDArray[Any]) -> torch.Tensor:
        seen.append(pixels.shape[:2])
        return normalize(self, pixels)

    monkeypatch.setattr(Normalization, "__call__", spy)
    tiled = Segmenter(network, config, device="cpu", tile_pixels=1)(image, depth=depth)
    plan = tile_plan(network.spec, size, 1)
    assert len(seen) == 2 * plan.count > 8
    assert np.max(seen, axis=0).tolist() == [40, plan.window[1]]
    assert len(np.unique(whole)) > 1
    np.testing.assert_array_equal(tiled, whole)


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
    [
        ({"precision": "fp16"}, "'fp32' or 'bf16', got 'fp16'"),
        ({"batch_pixels": 0}, "batch_pixels must be positive, got 0"),
        ({"tile_pixels": 0}, "tile_pixels must be positive, got 0"),
    ],
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
        "NonFiniteError",
        "Normalization",
        "OutOfMemoryError",
        "Outcome",
        "Segmenter",
        "build",
        "load_segmenter",
    ]
