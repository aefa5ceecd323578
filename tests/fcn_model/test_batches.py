"""A batch of unequal images gives each image exactly the scores that it has alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fcn_model import FCN
from fcn_model.losses import summed_cross_entropy
from fcn_model.spec import BackboneName, Head
from tests.support.networks import random_network

HEADS: tuple[Head, ...] = ("fcn32s", "fcn16s", "fcn8s")
SIZES = [(1, 1), (33, 21), (17, 40)]


def images_of(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(3, h, w, dtype=dtype, generator=generator) for h, w in SIZES]


def on_one_canvas(images: list[Tensor], height: int, width: int) -> Tensor:
    batch = torch.zeros(len(images), 3, height, width, dtype=images[0].dtype)
    for slot, image in zip(batch, images, strict=True):
        slot[:, : image.shape[1], : image.shape[2]] = image
    return batch


@pytest.mark.parametrize(
    ("head", "canvas", "grad", "backbone"),
    [
        ("fcn32s", (33, 40), False, "vgg16"),
        ("fcn16s", (33, 40), False, "vgg16"),
        ("fcn8s", (33, 40), False, "vgg16"),
        ("fcn8s", (64, 96), False, "vgg16"),
        ("fcn8s", (33, 40), True, "vgg16"),
        ("fcn32s", (33, 40), False, "caffenet"),
        ("fcn8s", (64, 96), True, "caffenet"),
        ("fcn8s", (33, 40), False, "alexnet"),
        ("fcn32s", (64, 96), True, "googlenet"),
        ("fcn16s", (64, 96), False, "googlenet"),
        ("fcn8s", (33, 40), False, "googlenet"),
        ("fcn8s", (64, 96), False, "googlenet_bn"),
    ],
)
def test_scores_in_a_batch_are_those_of_the_image_alone(
    head: Head, canvas: tuple[int, int], grad: bool, backbone: BackboneName
) -> None:
    network = random_network(head, dtype=torch.float64, backbone=backbone)
    images = images_of()
    with torch.set_grad_enabled(grad):
        scores = network(on_one_canvas(images, *canvas), SIZES)
        for image, score, (h, w) in zip(images, scores, SIZES, strict=True):
            alone = network(image[None])[0]
            # Float64 leaves rounding of 1e-14; anything that leaks in is a million times larger.
            torch.testing.assert_close(score[:, :h, :w], alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("head", HEADS)
def test_float32_batches_agree_to_rounding_and_in_every_argmax(head: Head) -> None:
    network = random_network(head).to(memory_format=torch.channels_last)
    images = images_of(torch.float32)
    with torch.inference_mode():
        scores = network(on_one_canvas(images, 33, 40), SIZES)
        for image, score, (h, w) in zip(images, scores, SIZES, strict=True):
            alone = network(image[None])[0]
            torch.testing.assert_close(score[:, :h, :w], alone, rtol=1e-5, atol=1e-5)
            assert torch.equal(score[:, :h, :w].argmax(0), alone.argmax(0))


def test_without_sizes_the_fill_does_leak_into_the_images() -> None:
    network, images = random_network(dtype=torch.float64), images_of()
    with torch.no_grad():
        leaking = network(on_one_canvas(images, 33, 40))[1, :, :33, :21]
        assert (leaking - network(images[1][None])[0]).abs().max() > 1e-3


def gradients(network: FCN, images: Tensor, labels: Tensor, sizes: list[tuple[int, int]]) -> Tensor:
    network.zero_grad()
    summed_cross_entropy(network(images, sizes), labels, 255).sum().backward()
    return torch.cat([value.grad.flatten() for value in network.parameters()])  # type: ignore[union-attr]


def test_the_gradient_of_a_batch_is_the_sum_of_its_images_gradients() -> None:
    network, images = random_network(dtype=torch.float64), images_of()
    labels = torch.full((len(SIZES), 33, 40), 255)
    generator = torch.Generator().manual_seed(5)
    for label, (h, w) in zip(labels, SIZES, strict=True):
        label[:h, :w] = torch.randint(0, 5, (h, w), generator=generator)
    together = gradients(network, on_one_canvas(images, 33, 40), labels, SIZES)
    alone = sum(
        gradients(network, image[None], label[None, :h, :w], [(h, w)])
        for image, label, (h, w) in zip(images, labels, SIZES, strict=True)
    )
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-4)


def test_sizes_that_fill_the_canvas_change_nothing() -> None:
    network, images = random_network(), torch.randn(2, 3, 20, 30)
    with torch.no_grad():
        assert torch.equal(network(images, [(20, 30)] * 2), network(images))


@pytest.mark.parametrize(
    ("shape", "sizes", "message"),
    [
        ((2, 3, 8, 9), [(8, 9)], "2 images, 1 sizes"),
        ((1, 3, 8, 9), [(9, 8)], r"size 0 is \(9, 8\), outside the canvas \(8, 9\)"),
        ((1, 3, 8, 9), [(0, 8)], r"size 0 is \(0, 8\)"),
        ((1, 4, 8, 9), None, r"must be \(N, 3, H, W\).*got \(1, 4, 8, 9\)"),
        ((3, 8, 9), None, r"got \(3, 8, 9\)"),
        ((0, 3, 8, 9), None, r"got \(0, 3, 8, 9\)"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(
    shape: tuple[int, ...], sizes: list[tuple[int, int]] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        random_network()(torch.zeros(shape), sizes)
