from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from fcn_model.geometry import Layer
from fcn_model.layers import BilinearUpsample, Conv, bilinear_kernel
from tests.support.networks import random_network


@pytest.mark.parametrize(
    ("size", "first", "largest"),
    [
        (4, [0.25, 0.75, 0.75, 0.25], 0.75),
        (3, [0.5, 1, 0.5], 1),
        (64, [0.015625, 0.046875], 0.984375),
        (63, [0.03125, 0.0625], 1),
    ],
)
def test_bilinear_kernels_are_those_of_the_reference(
    size: int, first: list[float], largest: float
) -> None:
    kernel = bilinear_kernel(size)
    row = kernel.sum(0) / kernel[:, 0].sum() * first[0]
    assert row[: len(first)].tolist() == pytest.approx(first)
    assert row.max().item() == pytest.approx(largest)
    torch.testing.assert_close(kernel, torch.outer(row, row))


@pytest.mark.parametrize("factor", [2, 8, 16, 32])
def test_upsampling_is_bilinear_interpolation_of_a_zero_padded_map(factor: int) -> None:
    score = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    upsampled = BilinearUpsample(3, Layer(2 * factor, stride=factor, transposed=True))(score)
    assert upsampled.shape == (2, 3, 6 * factor, 5 * factor)
    padded = F.pad(score, (1, 1, 1, 1))
    by_torch = F.interpolate(padded, scale_factor=float(factor), mode="bilinear")
    half = factor // 2
    torch.testing.assert_close(upsampled, by_torch[:, :, half:-half, half:-half])


def test_upsampling_is_fixed_and_not_saved() -> None:
    network = random_network()
    assert not [name for name in network.state_dict() if name.startswith("upscore")]
    assert not [name for name, _ in network.named_parameters() if name.startswith("upscore")]
    assert sum(isinstance(layer, BilinearUpsample) for layer in network.children()) == 3


def test_dropout_takes_single_elements_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    network = random_network().train()
    for name in ("drop6", "drop7"):
        dropped = network.get_submodule(name)(torch.ones(1, 1, 100, 100))
        assert set(dropped.unique().tolist()) == {0.0, 2.0}
        assert dropped.mean().item() == pytest.approx(1, abs=0.05)


def test_fresh_convolutions_keep_the_scale_of_what_they_see() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 64, 24, 24)
    for _ in range(10):
        x = F.relu(Conv(64, 64, 3, padding=1)(x))
    assert 0.2 < x.square().mean().sqrt().item() / math.sqrt(0.5) < 2


def test_hooks_of_a_layer_run_whether_or_not_gradients_are_wanted() -> None:
    network, seen = random_network(), []
    network.get_submodule("conv2_1").register_forward_hook(lambda *_: seen.append(1))
    for mode in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        seen.clear()
        with mode():
            network(torch.zeros(1, 3, 20, 20))
        assert seen, mode
