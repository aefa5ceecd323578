"""Kernels for GPUs beside the same in plain torch; without a GPU in Triton's interpreter."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from fcn_model import convolution, masks, ring
from fcn_model.backbones import steps
from fcn_model.geometry import Layer
from fcn_model.layers import Conv
from fcn_model.spec import BackboneName
from tests.support.enlarged import KERNELS, agrees_with_enlarged_scores
from tests.support.networks import random_network

pytest.importorskip("triton")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ROUNDING = 1e-5 if DEVICE.type == "cpu" else 2e-3
"""Of the largest value: a GPU's product of float32 is in TF32."""

torch.manual_seed(0)


@pytest.fixture(autouse=True)
def exact_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def kernels() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE.type == "cpu":
            patch.setenv("TRITON_INTERPRET", "1")  # read where a kernel is defined, and where run
        sys.modules.pop("fcn_model.triton_kernels", None)
        yield importlib.import_module("fcn_model.triton_kernels")
    sys.modules.pop("fcn_model.triton_kernels", None)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, device=DEVICE)


@pytest.mark.parametrize(
    "geometry",
    [
        Layer(2, stride=2, ceil=True),
        Layer(3, stride=2, ceil=True),
        Layer(3, stride=2),
        Layer(3, pad=1),
    ],
)
@pytest.mark.parametrize("channels", [1, 70])
def test_pooling_takes_the_maximum(kernels: Any, geometry: Layer, channels: int) -> None:
    g = geometry
    x = noise(2, channels, 23, 18)
    part = x.contiguous(memory_format=torch.channels_last)[:, :, 2:-1, 3:]  # as a ring cuts it
    for one in (x, part):
        wanted = F.max_pool2d(one, g.kernel, g.stride, g.pad, ceil_mode=g.ceil)
        torch.testing.assert_close(kernels.max_pool(one, g), wanted, rtol=0, atol=0)
    x[1, 0, 9, 8] = torch.nan
    wanted = F.max_pool2d(x, g.kernel, g.stride, g.pad, ceil_mode=g.ceil)
    assert wanted.isnan().any()
    torch.testing.assert_close(kernels.max_pool(x, g), wanted, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("channels", "size"), [(1, 5), (70, 5), (96, 4)])
def test_responses_are_normalized(kernels: Any, channels: int, size: int) -> None:
    x = 30 * noise(2, channels, 9, 7)
    for alpha, beta in ((1e-4, 0.75), (1e-2, 0.5)):
        wanted = F.local_response_norm(x.double(), size, alpha, beta)
        made = kernels.response_norm(x, size, alpha, beta)
        torch.testing.assert_close(made.double(), wanted, rtol=2e-6, atol=0)


@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "stride", "padding"),
    [(3, 64, 3, 1, 1), (3, 20, 11, 4, 5), (4, 70, 7, 2, 3), (1, 8, 3, 1, 0)],
)
def test_a_convolution_of_an_image_is_rectified(
    kernels: Any, channels: int, outputs: int, kernel: int, stride: int, padding: int
) -> None:
    x, weight = noise(2, channels, 33, 29), noise(outputs, channels, kernel, kernel)
    bias = noise(outputs)
    made = kernels.rectified(x, weight, bias, stride=stride, padding=padding)
    exact = F.conv2d(x.double(), weight.double(), bias.double(), stride, padding).relu()
    torch.testing.assert_close(made.double(), exact, rtol=0, atol=ROUNDING * float(exact.max()))


@pytest.mark.parametrize(("factor", "kernel", "offset"), KERNELS)
def test_the_best_class_is_that_of_the_enlarged_scores(
    kernels: Any, factor: int, kernel: int, offset: tuple[int, int]
) -> None:
    agrees_with_enlarged_scores(kernels.enlarged_argmax, factor, kernel, offset, DEVICE)


@pytest.mark.parametrize("backbone", ["vgg16", "alexnet", "googlenet"])
def test_a_network_computes_the_same_with_the_kernels(
    kernels: Any, monkeypatch: pytest.MonkeyPatch, backbone: BackboneName
) -> None:
    network = random_network("fcn8s", backbone=backbone, dtype=torch.float32).eval().to(DEVICE)
    images = noise(2, 3, 61, 90).contiguous(memory_format=torch.channels_last)
    for bound in ("BUSY_PIXELS", "BUSY_PRODUCTS"):
        monkeypatch.setattr(ring, bound, 0)
    coarse = []
    for there in (False, True):
        for module in (ring, steps):
            monkeypatch.setattr(module, "has_kernels", lambda _device, there=there: there)
        with torch.inference_mode():
            coarse.append([network.coarse(images), network.coarse(images, [(61, 90), (40, 71)])])
    for plain, fast in zip(*coarse, strict=True):
        assert plain.std() > 1e-3
        torch.testing.assert_close(fast, plain, rtol=0, atol=1e-5 * float(plain.abs().max()))


def test_masks_are_those_of_plain_torch(kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_network("fcn16s", dtype=torch.float32).eval().to(DEVICE)
    head, layers = network.heads[0], dict(network.named_children())
    with torch.inference_mode():
        coarse = network.coarse(noise(2, 3, 50, 47))
        sizes = [(50, 47), (31, 47)]
        made = []
        for there in (False, True):
            monkeypatch.setattr(masks, "has_kernels", lambda _device, there=there: there)
            found = masks.classified(head, layers, coarse, sizes[0])
            made.append(masks.masks(head, layers, found, sizes))
    for plain, fast, size in zip(*made, sizes, strict=True):
        assert plain.shape == fast.shape == size
        assert (plain == fast).mean() > 0.999


@pytest.mark.parametrize(("channels", "kernel"), [(512, 5), (3, 3)])
def test_a_layer_is_rectified_in_one_kernel(
    kernels: Any, monkeypatch: pytest.MonkeyPatch, channels: int, kernel: int
) -> None:
    monkeypatch.setattr(convolution, "has_kernels", lambda _device: True)
    layer = Conv(channels, 24, kernel).to(DEVICE)
    nn.init.normal_(layer.bias)  # type: ignore[arg-type]
    layer.to(memory_format=torch.channels_last)
    x = noise(2, channels, 12, 9).contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(convolution, "MANY_TAPS", 1000)
    with torch.inference_mode():
        fused = convolution._fused(layer, x, 0)
        plain = convolution.rectified(layer, x)
    torch.testing.assert_close(fused, plain, rtol=0, atol=ROUNDING * float(plain.max()))
    x[1, channels // 2, 4, 3] = torch.nan
    with torch.inference_mode():
        fused = convolution._fused(layer, x, 0)
        plain = convolution.rectified(layer, x)
    assert 0 < plain.isnan().sum() < plain.numel()
    assert torch.equal(fused.isnan(), plain.isnan())  # or it would be a mask, and no error


@pytest.mark.skipif(DEVICE.type == "cpu", reason="half precision has kernels on a GPU only")
@pytest.mark.parametrize(("channels", "kernel"), [(64, 3), (512, 7), (3, 3)])
def test_what_is_no_number_stays_none_in_half_precision(channels: int, kernel: int) -> None:
    layer = Conv(channels, 64, kernel).to(DEVICE, torch.bfloat16)
    layer.to(memory_format=torch.channels_last)
    x = noise(2, channels, 12, 9).bfloat16().contiguous(memory_format=torch.channels_last)
    x[1, channels // 2, 4, 3] = torch.nan
    with torch.inference_mode():
        made = layer.rectified(x)
        wanted = F.relu(F.conv2d(x, layer.weight, layer.bias))
    assert 0 < wanted.isnan().sum() < wanted.numel()
    assert torch.equal(made.isnan(), wanted.isnan())
