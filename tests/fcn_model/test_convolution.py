"""The ways to compute a convolution agree with torch's own, and are taken where they pay."""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from fcn_model import convolution, winograd
from fcn_model.convolution import KeptWeights
from fcn_model.layers import Conv, Variant
from fcn_model.winograd import Winograd, convolved, transformed


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=dtype)


@pytest.mark.parametrize("padding", [0, 1, 2])
def test_winograds_way_is_the_convolution_at_every_size_with_its_gradients(padding: int) -> None:
    for height, width in itertools.product(range(max(1, 3 - 2 * padding), 12), (3, 4, 7, 10)):
        given = random(2, 3, height, width), random(5, 3, 3, 3, seed=1), random(5, seed=2)
        results = []
        for way, options in ((Winograd.apply, (padding,)), (F.conv2d, (1, padding))):
            x, weight, bias = (each.clone().requires_grad_() for each in given)
            output = way(x, weight, bias, *options)
            output.mul(random(*output.shape, seed=3)).sum().backward()
            results.append((output, x.grad, weight.grad, bias.grad))
        for ours, theirs in zip(*results, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_in_float32_it_is_as_exact_as_the_docstring_says() -> None:
    x, bias = random(1, 256, 37, 50), random(256, seed=1)
    weight = random(256, 256, 3, 3, seed=2) / 48
    exact = F.conv2d(x, weight, bias, padding=1)
    x, weight, bias = (each.float() for each in (x, weight, bias))
    scale = exact.abs().max()
    ours = (convolved(x, transformed(weight), bias, 1) - exact).abs().max() / scale
    assert 1e-8 < ours < 1.5e-5


def test_tiles_are_transformed_in_parts_of_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = random(2, 4, 61, 30), transformed(random(6, 4, 3, 3, seed=1))
    expected = convolved(x, weight, None, 1)
    held = []
    real = winograd._tiles

    def watched(rows: Tensor) -> Tensor:
        held.append(real(rows))
        return held[-1]

    monkeypatch.setattr(winograd, "_tiles", watched)
    monkeypatch.setattr(winograd, "CHUNK_BYTES", 100_000)
    torch.testing.assert_close(convolved(x, weight, None, 1), expected, rtol=0, atol=1e-12)
    assert len(held) > 3
    assert max(each.nbytes for each in held) <= 100_000


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("kernel", "size"), [(7, (9, 8)), (1, (5, 4)), (7, (7, 7))])
def test_a_layer_of_many_weights_is_a_product_with_the_convolutions_gradients(
    kernel: int, size: tuple[int, int], memory_format: torch.memory_format
) -> None:
    layer = Conv(6, 200, kernel).double().to(memory_format=memory_format)
    x = random(2, 6, *size).contiguous(memory_format=memory_format).requires_grad_()
    assert convolution._is_product(layer, x, 0)
    parameters = (x, *layer.parameters())
    results = []
    for way in (layer, lambda x: F.conv2d(x, layer.weight, layer.bias)):
        output = way(x)
        weights = random(*output.shape, seed=3)
        results.append((output, *torch.autograd.grad((output * weights).sum(), parameters)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("kernel", "size"), [(7, (9, 8)), (1, (5, 4)), (7, (7, 7))])
def test_in_float32_that_product_is_the_convolution(
    kernel: int, size: tuple[int, int], memory_format: torch.memory_format
) -> None:
    layer = Conv(6, 200, kernel).to(memory_format=memory_format)
    x = random(2, 6, *size, dtype=torch.float32).contiguous(memory_format=memory_format)
    assert convolution._is_product(layer, x, 0)
    assert layer.bias is not None
    exact = F.conv2d(x.double(), layer.weight.double(), layer.bias.double())
    for many in (x, x[:1]):  # one image of one position has strides of its own
        with torch.no_grad():
            found = layer(many)
        torch.testing.assert_close(found.double(), exact[: len(many)], rtol=0, atol=1e-5)


@pytest.mark.parametrize("way", ["alone", "kept", "learning"])
def test_a_wide_layer_goes_by_winograd_with_its_weights_as_they_are(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    real = winograd.transformed

    def counted(weight: Tensor) -> Tensor:
        calls.append(weight.shape)
        return real(weight)

    monkeypatch.setattr(winograd, "transformed", counted)
    monkeypatch.setattr(convolution, "transformed", counted)
    layer = Conv(256, 128, 3, padding=1)
    x = random(1, 256, 40, 40, dtype=torch.float32)

    def check(kept: KeptWeights | None) -> None:
        """The layer and its variant against float64."""
        with torch.set_grad_enabled(way == "learning"):
            output, inner = layer(x, None, kept), Variant(layer, padding=0, kept=kept)(x)
        bias = layer.bias
        assert bias is not None
        exact = F.conv2d(x.double(), layer.weight.double(), bias.double(), padding=1).detach()
        within = 5e-5 * float(exact.abs().max())
        torch.testing.assert_close(output.double(), exact, rtol=0, atol=within)
        exact = exact[:, :, 1:-1, 1:-1]
        torch.testing.assert_close(inner.double(), exact, rtol=0, atol=within)

    kept = None if way == "alone" else KeptWeights()
    check(kept)
    check(kept)
    assert len(calls) == (1 if way == "kept" else 4)
    layer.weight.data.mul_(2)  # torch does not count this, nor what its fused optimizers do
    check(KeptWeights() if way == "kept" else kept)  # the promise was broken


def test_kept_weights_are_told_apart_and_made_once_for_all_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def slow(weight: Tensor) -> Tensor:
        calls.append(weight.shape[0])
        time.sleep(0.05)
        return weight * 2

    monkeypatch.setattr(convolution, "transformed", slow)
    kept = KeptWeights()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            weights = [random(size, 3, 3, 3).requires_grad_() for size in (4, 5)] * 4
            for one, made in zip(weights, pool.map(kept.of, weights), strict=True):
                assert torch.equal(made, one * 2)
                assert not made.requires_grad
            del weights, one  # their places in memory may be taken by others
    assert sorted(calls) == [4, 4, 4, 5, 5, 5]


@pytest.mark.parametrize(
    "case", ["float64", "half", "autocast", "strided", "grouped", "narrow", "small"]
)
def test_elsewhere_it_is_torchs_own(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> Tensor:
        raise AssertionError("Winograd's way was taken")

    monkeypatch.setattr(convolution, "convolved", never)
    monkeypatch.setattr(Winograd, "apply", never)
    dtype = {"float64": torch.float64, "half": torch.bfloat16}.get(case, torch.float32)
    channels = 64 if case == "narrow" else 256
    stride, groups = 2 if case == "strided" else 1, 2 if case == "grouped" else 1
    layer = Conv(channels, channels, 3, padding=1, stride=stride, groups=groups).to(dtype)
    side = 20 if case == "small" else 40
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        output = layer(torch.ones(1, channels, side, side, dtype=dtype))
    assert output.shape[2:] == (side // stride, side // stride)
