"""Rarefied scores, stitched scores and scores computed window by window are the same."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fcn_model import FCN, stitching_cost
from fcn_model.backbones.googlenet import googlenet, googlenet_bn
from fcn_model.backbones.steps import (
    Convolve,
    Inception,
    MaxPool,
    ResponseNorm,
    Step,
)
from fcn_model.backbones.trunk import Trunk
from fcn_model.errors import SpecError
from fcn_model.extents import Extents
from fcn_model.geometry import Layer, output_size, stride, window
from fcn_model.rarefaction import rarefied_map
from fcn_model.shifts import stitched_map
from fcn_model.spec import BackboneName, NetworkSpec
from fcn_model.stitching import rarefied, stitched
from fcn_model.stitching_cost import coarse_cost, rarefied_cost, stitched_cost
from tests.support.networks import narrow_spec, random_network
from tests.support.windows import Layers, by_hand, image_of, random_layers

BACKBONES: tuple[BackboneName, ...] = get_args(BackboneName)


def network_of(backbone: BackboneName, **spec: Any) -> FCN:
    return random_network("fcn32s", backbone=backbone, width=1 / 32, dtype=torch.float64, **spec)


def assert_same(one: Tensor, other: Tensor) -> None:
    """Float64 leaves rounding of 1e-14; a zero that should be none is a million times larger."""
    assert one.std() > 1e-3
    torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


# Small trunks, window by window.


def random_steps(draw: random.Random) -> list[Step]:
    """A chain of small layers; their strides multiply to 8 at most."""
    steps: list[Step] = []
    channels, total = 2, 1
    for index in range(draw.randint(2, 5)):
        step = draw.choice([s for s in (1, 2, 3) if s * total <= 8])
        kind = "convolve" if index == 0 else draw.choice(["convolve", "pool", "pool", "module"])
        if kind == "convolve":
            kernel = draw.randint(1, 4)
            layer = Layer(kernel, step, draw.randint(0, kernel))
            steps.append(Convolve(f"conv{index}", layer, channels, 4, draw.choice([1, 2])))
            channels = 4
        elif kind == "pool":
            kernel = draw.randint(2, 4)
            layer = Layer(kernel, step, draw.randint(0, kernel // 2), ceil=draw.random() < 0.7)
            steps.append(MaxPool(f"pool{index}", layer, channels))
            steps.append(ResponseNorm(f"norm{index}", channels, alpha=1.0))
        else:
            step = 1
            steps.append(small_module(f"module{index}", channels))
            channels = steps[-1].channels
        total *= step
    return steps


def small_module(name: str, channels: int) -> Inception:
    return Inception(
        name,
        (
            (Convolve(f"{name}a", Layer(1), channels, 1),),
            (
                MaxPool(f"{name}p", Layer(3, pad=1, ceil=True), channels),
                Convolve(f"{name}b", Layer(1), channels, 1),
            ),
            (
                Convolve(f"{name}c", Layer(1), channels, 2),
                Convolve(f"{name}d", Layer(5, pad=2), 2, 2),
            ),
        ),
    )


@torch.no_grad()
def test_small_random_trunks_agree_with_every_window_computed_by_itself() -> None:
    torch.manual_seed(0)
    draw, compared = random.Random(0), 0
    while compared < 20:
        steps, size = random_steps(draw), (draw.randint(1, 13), draw.randint(1, 9))
        path = [step.geometry for step in steps]
        try:
            coarse_size = [output_size(path, length) for length in size]
        except SpecError:
            continue
        layers, image = random_layers(steps), image_of(*size, channels=2)
        expected = by_hand(steps, layers, image[0], 1)[None]
        f = stride(path)
        assert [math.ceil(length / f) for length in expected.shape[2:]] == coarse_size, steps
        for dense in (
            rarefied_map(steps, layers, image),
            stitched_map(steps, layers, image, lambda x: x, at_once=draw.randint(1, 9)),
        ):
            torch.testing.assert_close(dense, expected, rtol=0, atol=1e-10)
        coarse = plainly(steps, layers, image)
        torch.testing.assert_close(expected[:, :, ::f, ::f], coarse, rtol=0, atol=1e-10)
        compared += 1


def plainly(steps: list[Step], layers: Layers, x: Tensor) -> Tensor:
    for step in steps:
        x = step.run(layers, x, Extents(None))
    return x


@torch.no_grad()
def test_where_no_padding_is_seen_the_stitched_scores_are_the_papers() -> None:
    """Shift, run the network as it is, interlace: no rule about borders."""
    torch.manual_seed(1)
    steps: list[Step] = [
        Convolve("conv1", Layer(3, stride=2, pad=4), 2, 4),
        MaxPool("pool1", Layer(3, stride=2, ceil=True), 4),
        small_module("module", 4),
        MaxPool("pool2", Layer(2, stride=2, ceil=True), 4),
        Convolve("conv2", Layer(2), 4, 3),
    ]
    layers, image, f = random_layers(steps), image_of(70, 90, channels=2), 8
    whole = window(step.geometry for step in steps)
    dense = stitched_map(steps, layers, image, lambda x: x, at_once=16)
    reach, compared = Fraction(whole.kernel - 1, 2), 0
    for down, across in ((0, 0), (1, 0), (3, 5), (7, 7), (0, 4)):
        coarse = plainly(steps, layers, F.pad(image, (across, 0, down, 0)))
        for row in range(coarse.shape[2]):
            for column in range(coarse.shape[3]):
                y, x = f * row - down, f * column - across
                seen = [y + whole.offset - reach, x + whole.offset - reach]
                if min(seen) < 0 or any(
                    first + whole.kernel > length
                    for first, length in zip(seen, image.shape[2:], strict=True)
                ):
                    continue
                difference = dense[:, :, y, x] - coarse[:, :, row, column]
                assert difference.abs().max() < 1e-12
                compared += 1
    assert compared > 50


# The real nets.


@pytest.mark.parametrize("backbone", ["vgg16", "caffenet", "alexnet"])
def test_both_ways_agree_at_every_shift(backbone: BackboneName) -> None:
    network, images = network_of(backbone, more_tasks=(("geo", 2),)), image_of(1, 2, count=2)
    one, other = rarefied(network, images), stitched(network, images, at_once=16)
    assert one.scores_NKhw.shape[:2] == (2, 7)
    assert_same(one.scores_NKhw, other.scores_NKhw)
    assert one.coordinates == other.coordinates


@pytest.mark.parametrize(("backbone", "size"), [(googlenet, (43, 31)), (googlenet_bn, (27, 15))])
@torch.no_grad()
def test_both_ways_agree_at_every_shift_of_googlenet(
    backbone: Callable[[NetworkSpec, int, int], Trunk], size: tuple[int, int]
) -> None:
    """Padded by 5, since without fc6 its map would have 165 x 165 positions for one pixel."""
    torch.manual_seed(0)
    steps = backbone(narrow_spec(backbone="googlenet", width=1 / 32), 3, 5).steps
    layers, images = random_layers(steps), image_of(*size)
    one = rarefied_map(steps, layers, images)
    assert one.shape[2:] == (17, 5)
    assert_same(one, stitched_map(steps, layers, images, lambda x: x, at_once=16))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("size", [(1, 1), (45, 18)])
def test_every_32nd_score_is_the_networks_own(
    backbone: BackboneName, size: tuple[int, int]
) -> None:
    network, coarse = network_of(backbone), []
    network.get_submodule("score_fr").register_forward_hook(
        lambda _layer, _given, made: coarse.append(made)
    )
    with torch.no_grad():
        network(image_of(*size))
    dense = rarefied(network, image_of(*size))
    assert_same(dense.scores_NKhw[:, :, ::32, ::32], coarse[0])
    # The final crop says the same: enlarged score 0 has the middle of its kernel there.
    head = network.heads[0]
    middle = Fraction(head.final_geometry.kernel - 1, 2)
    assert dense.coordinates.offset == middle - head.final_offset
    assert dense.coordinates.scale == 1


@torch.no_grad()
def test_the_dense_scores_of_two_streams_are_the_mean_of_theirs() -> None:
    streams = (("color", 3), ("hha", 3))
    network, images = network_of("vgg16", streams=streams), torch.cat([image_of(1, 2)] * 2, 1)
    one, other = rarefied(network, images), stitched(network, images, at_once=16)
    assert_same(one.scores_NKhw, other.scores_NKhw)
    coarse = []
    for stream, _ in streams:
        network.get_submodule(f"score_fr{stream}").register_forward_hook(
            lambda _layer, _given, made: coarse.append(made)
        )
    network(images)
    assert_same(one.scores_NKhw[:, :, ::32, ::32], (coarse[0] + coarse[1]) / 2)


def test_a_net_with_skips_is_refused() -> None:
    network = random_network("fcn16s")
    for dense in (rarefied, stitched):
        with pytest.raises(SpecError, match=r"without skips .*got FCN-16s narrow"):
            dense(network, torch.zeros(1, 3, 8, 8))


def test_what_does_not_fit_is_refused() -> None:
    network = random_network("fcn32s")
    with pytest.raises(ValueError, match=r"must be \(N, 3, H, W\)"):
        rarefied(network, torch.zeros(1, 4, 8, 8))
    with pytest.raises(ValueError, match="at_once is a number of shifts from 1, got 0"):
        stitched(network, torch.zeros(1, 3, 8, 8), at_once=0)
    with pytest.raises(ValueError, match=r"call network.eval\(\)"):
        rarefied(network.train(), torch.zeros(1, 3, 8, 8))


# What it takes.


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_arithmetic_is_what_torch_counts(backbone: BackboneName) -> None:
    # In float64, since torch does not count the products that oneDNN does in float32.
    network = random_network("fcn32s", backbone=backbone, width=1 / 64, dtype=torch.float64)
    images = torch.zeros(1, 3, 2, 1, dtype=torch.float64)
    spec = network.spec
    with FlopCounterMode(display=False) as counter:
        rarefied(network, images)
    assert counter.get_total_flops() == 2 * rarefied_cost(spec, (2, 1)).multiply_adds
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layers = dict(network.named_children())
        trunk = network.backbone
        layers["score_fr"](trunk.run(layers, images, Extents(None))[trunk.top])
    assert counter.get_total_flops() == 2 * coarse_cost(spec, (2, 1)).multiply_adds
    if backbone == "caffenet":  # 12 shifts; up to 1024 otherwise
        with FlopCounterMode(display=False) as counter:
            stitched(network, images, at_once=1)
        assert counter.get_total_flops() == 2 * stitched_cost(spec, (2, 1)).multiply_adds


def test_the_docstring_has_the_figures_of_the_code() -> None:
    spec, size = NetworkSpec(num_classes=21, head="fcn32s"), (500, 500)
    coarse, dense, shifts = (
        cost(spec, size) for cost in (coarse_cost, rarefied_cost, stitched_cost)
    )
    assert stitching_cost.__doc__ is not None
    for way, cost in (("network", coarse), ("rarefaction", dense), ("stitching", shifts)):
        assert f"{way:12}{cost}" in stitching_cost.__doc__
    # fc7's input and output are the largest: 698 positions less six of fc6's taps 32 apart.
    assert dense.values == (2 * 4096 + 21) * 506**2
    assert rarefied.__doc__ is not None
    assert stitched.__doc__ is not None
    assert f"{dense.multiply_adds / 1e12:.0f} T" in rarefied.__doc__
    assert f"{shifts.multiply_adds / 1e12:.0f} T" in stitched.__doc__
