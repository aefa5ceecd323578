"""Maps whose ring of padding comes from an image of zeros are those that the trunk computes."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import get_args

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from fcn_model import FCN, ring
from fcn_model.extents import Extents
from fcn_model.geometry import stride
from fcn_model.kept import Kept
from fcn_model.ring import KeptZeros
from fcn_model.ring_plan import padded, parts, smallest
from fcn_model.spec import BackboneName, Stream
from tests.support.networks import random_network

BACKBONES: tuple[BackboneName, ...] = get_args(BackboneName)

Sizes = Sequence[tuple[int, int]]


@pytest.fixture(autouse=True)
def _always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow nets would do without the ring where zeros are not kept."""
    monkeypatch.setattr(ring, "BUSY_PRODUCTS", 0)


def image(size: tuple[int, int], count: int = 1, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(size[0] * 1000 + size[1])
    return torch.randn(count, channels, *size, generator=generator, dtype=torch.float64)


def batch(sizes: Sizes) -> Tensor:
    """Images of these sizes, zero-filled to one canvas."""
    canvas = torch.zeros(len(sizes), 3, *(max(size[axis] for size in sizes) for axis in (0, 1)))
    canvas = canvas.double()
    for slot, (height, width) in zip(canvas, sizes, strict=True):
        slot[:, :height, :width] = image((height, width))[0]
    return canvas


def agree(
    network: FCN, images: Tensor, sizes: Sizes | None = None, kept: KeptZeros | None = None
) -> None:
    """The features of the ring and of the trunk alone; float64 leaves rounding of 1e-14."""
    trunk, layers = network.backbone, dict(network.named_children())
    extents = Extents.of_batch(images, sizes)
    expected = trunk.run(layers, images, extents)
    found = ring.features(trunk, layers, images, extents, kept)
    assert found.keys() == expected.keys()
    for name, map_NChw in expected.items():
        assert found[name].shape == map_NChw.shape
        scale = float(map_NChw.abs().max())
        assert scale > 1e-3
        torch.testing.assert_close(found[name], map_NChw, rtol=0, atol=1e-11 * scale)


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.inference_mode()
def test_maps_are_those_of_the_whole_padded_image_at_every_phase_of_the_stride(
    backbone: BackboneName,
) -> None:
    network = random_network(backbone=backbone, dtype=torch.float64)
    assert len(parts(network.backbone, (1, 1))) > 3
    for height in range(1, 34):
        agree(network, image((height, 100 - 2 * height)))
    for size in [(1, 1), (1, 260), (97, 130), (255, 33), (300, 301)]:
        agree(network, image(size, count=2))


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.inference_mode()
def test_images_of_several_sizes_in_one_batch_each_keep_their_own_ring(
    backbone: BackboneName,
) -> None:
    network = random_network(backbone=backbone, dtype=torch.float64)
    sizes = [(30, 64), (64, 33), (30, 64), (1, 50), (64, 64)]
    agree(network, batch(sizes), sizes, KeptZeros())
    agree(network, F.pad(batch(sizes[:1]), (0, 40, 0, 7)), sizes[:1])  # the canvas may be larger


@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradients_are_those_of_the_whole_padded_image(backbone: BackboneName) -> None:
    network = random_network(backbone=backbone, dtype=torch.float64)
    trunk, layers = network.backbone, dict(network.named_children())
    sizes = [(40, 61), (61, 40), (40, 61)]
    kept = KeptZeros()
    with torch.no_grad():
        ring.features(trunk, layers, batch(sizes), Extents(sizes), kept)
    assert kept.bytes  # which have no gradients
    gradients = []
    for run in (Trunkwise(), ring.features, partial(ring.features, kept=kept)):
        images = batch(sizes).requires_grad_()
        maps = run(trunk, layers, images, Extents(sizes))
        loss = sum((maps[name].square().mean() for name in sorted(maps)), torch.zeros(()))
        network.zero_grad()
        loss.backward()
        own = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
        assert images.grad is not None
        inside = [each[:, :h, :w] for each, (h, w) in zip(images.grad, sizes, strict=True)]
        gradients.append({**own, **{f"image {index}": each for index, each in enumerate(inside)}})
    expected, *others = gradients
    assert sum(float(gradient.abs().max()) > 0 for gradient in expected.values()) > 10
    for found in others:
        assert expected.keys() == found.keys()
        for name, gradient in expected.items():
            scale = float(gradient.abs().max())
            torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-10 * scale)


class Trunkwise:
    """The trunk alone, called as the ring is."""

    def __call__(self, trunk, layers, images, extents):
        return trunk.run(layers, images, extents)


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.inference_mode()
def test_the_part_that_is_made_is_what_an_image_changes_and_little_more(
    backbone: BackboneName,
) -> None:
    network = random_network(backbone=backbone, dtype=torch.float64)
    for parameter in network.parameters():
        parameter.abs_()  # so that every pixel changes all that sees it
    trunk, layers = network.backbone, dict(network.named_children())
    for size in [(1, 1), (37, 60), (50, 33)]:
        x = torch.stack([torch.zeros(3, *size), torch.ones(3, *size)]).double()
        for step, part in zip(trunk.steps, parts(trunk, size), strict=False):
            x = step.run(layers, x, Extents(None))
            changed = ((x[0] - x[1]).abs() > 1e-12 * x.max()).any(0)
            assert changed.shape == part.size
            area = 1
            for (begin, end), seen in zip(part.made, (changed.any(1), changed.any(0)), strict=True):
                where = seen.nonzero().flatten().tolist()
                assert begin <= where[0] <= where[-1] < end, (step.name, size)
                area *= where[-1] + 1 - where[0]
            (top, bottom), (left, right) = part.made
            assert (bottom - top) * (right - left) <= 1.05 * area


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_image_of_zeros_is_small_and_of_the_same_phase(backbone: BackboneName) -> None:
    trunk = random_network(backbone=backbone).backbone
    phases: dict[int, set[int]] = defaultdict(set)
    for height, width in itertools.product(range(300, 333), range(301, 640, 37)):
        steps = len(parts(trunk, (height, width)))
        zero = smallest(trunk, steps, padded(trunk, (height, width)))
        phases[steps].add(zero[0])
        assert max(zero) < 200
    for steps, heights in phases.items():
        path = [step.geometry for step in trunk.steps[:steps]]
        assert len(heights) <= stride(path)


@torch.inference_mode()
def test_maps_of_zeros_are_made_once_for_each_phase_and_their_memory_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = random_network(dtype=torch.float64)
    made = []
    zeros = ring.zeros

    def counted(trunk, layers, steps, size, like):
        result = zeros(trunk, layers, steps, size, like)
        made.append((size, sum(each.nbytes for each in result.maps)))
        return result

    monkeypatch.setattr(ring, "zeros", counted)
    kept = KeptZeros()
    for size in [(30, 40), (46, 40), (30, 72), (30, 40)]:  # of one phase of 16
        agree(network, image(size), kept=kept)
    assert len(made) == 1
    monkeypatch.setattr(ring, "KEPT_BYTES", 3 * made[0][1])
    for width in (*range(40, 56), *range(40, 56)):
        agree(network, image((30, width)), kept=kept)
        assert kept.bytes <= ring.KEPT_BYTES
    assert len(made) > 30  # what was least used has gone, and is made again


@torch.inference_mode()
def test_each_stream_has_zeros_of_its_own() -> None:
    streams = (Stream("color", 3), Stream("hha", 3))
    network = random_network(dtype=torch.float64, streams=streams)
    kept = Kept()
    images = image((33, 50), channels=6)
    expected = network(images)
    for _ in range(2):
        torch.testing.assert_close(network(images, None, kept), expected, rtol=0, atol=1e-10)
    assert float(expected.std()) > 1e-3


@torch.inference_mode()
def test_maps_of_zeros_that_were_made_under_autocast_serve_nothing_else() -> None:
    network, images, kept = random_network(), image((33, 50)).float(), Kept()
    expected = network(images)
    with torch.autocast("cpu", torch.bfloat16):
        halves = network(images, None, kept)
    error = 1e-5 * float(expected.abs().max())
    assert float((halves - expected).abs().max()) > 10 * error
    torch.testing.assert_close(network(images, None, kept), expected, rtol=0, atol=error)
