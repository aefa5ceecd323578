"""Dense maps computed value by value, in loops: what `fcn_model.stitching` is compared with."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fcn_model.backbones.steps import Inception, MaxPool, ResponseNorm, Step, make_layers
from fcn_model.geometry import Layer
from fcn_model.layers import Conv

Layers = dict[str, nn.Module]


def image_of(height: int, width: int, count: int = 1, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.randn(count, channels, height, width, dtype=torch.float64, generator=generator)


def random_layers(steps: list[Step] | tuple[Step, ...]) -> Layers:
    layers = make_layers(steps)
    for layer in layers.values():
        if isinstance(layer, Conv):
            assert layer.bias is not None
            nn.init.normal_(layer.bias, 0.1, 0.3)
        layer.double().eval()
    return layers


def by_hand(steps: list[Step] | tuple[Step, ...], layers: Layers, x: Tensor, apart: int) -> Tensor:
    """The dense map (C, h, w) of one image, each value from its own taps ``apart`` from each other.

    A window is one of the network's, or what such a window would be at this shift, if all of it
    lies on the padded map; rounded up, if it begins on the map or the padding before it, and
    overhangs by less than the stride.
    """
    for step in steps:
        x = one_by_hand(step, layers, x, apart)
        apart *= step.geometry.stride
    return x


def one_by_hand(step: Step, layers: Layers, x: Tensor, apart: int) -> Tensor:
    if isinstance(step, Inception):
        return torch.cat([by_hand(branch, layers, x, apart) for branch in step.branches])
    if isinstance(step, ResponseNorm):
        return F.local_response_norm(x[None], step.size, step.alpha, step.beta)[0]
    rows, columns = (windows(step.geometry, length, apart) for length in x.shape[1:])
    values = [[value(step, layers, patch(x, r, c)) for c in columns] for r in rows]
    return torch.stack([torch.stack(row, 1) for row in values], 1)


def windows(layer: Layer, length: int, apart: int) -> list[list[int]]:
    """The taps of each output of one axis."""
    found: list[list[int]] = []
    over = (layer.stride - 1) * apart if layer.ceil else 0
    while True:
        first = len(found) - layer.pad * apart
        last = first + (layer.kernel - 1) * apart
        beyond = last > length - 1 + layer.pad * apart + over
        if beyond or (layer.ceil and first >= length):
            return found
        found.append(list(range(first, last + 1, apart)))


def patch(x: Tensor, rows: list[int], columns: list[int]) -> Tensor:
    """(C, k, k), zero off the map."""
    values = x.new_zeros(len(x), len(rows), len(columns))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
                values[:, i, j] = x[:, row, column]
    return values


def value(step: Step, layers: Layers, values: Tensor) -> Tensor:
    if isinstance(step, MaxPool):
        return values.amax((1, 2))
    layer = layers[step.name]
    assert isinstance(layer, Conv)
    assert layer.bias is not None
    parts = zip(layer.weight.chunk(layer.groups), values.chunk(layer.groups), strict=True)
    sums = torch.cat([torch.tensordot(weight, part, 3) for weight, part in parts])
    return (sums + layer.bias).clamp(min=0)
