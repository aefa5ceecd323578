"""Filter rarefaction: a trunk with its strides left out and its filters spread instead.

See `stitching`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fcn_model.backbones.steps import SAME, Convolve, Inception, MaxPool, Step
from fcn_model.extents import Extents
from fcn_model.geometry import Layer
from fcn_model.layers import Conv


def dense_size(layer: Layer, size: int, step: int) -> int:
    """Positions that ``layer`` makes, with stride 1 and dilation ``step``, of ``size`` positions.

    Every ``step * layer.stride``-th of them is an output of the layer as the network has it, and
    there are no more: ``ceil(dense_size / (step * stride))`` is ``layer.output_size(ceil(size /
    step))``.
    """
    count = size + (2 * layer.pad - layer.kernel + 1) * step
    if layer.ceil:
        # Windows that overhang by less than a stride, unless they begin beyond the input.
        count = min(count + (layer.stride - 1) * step, size + layer.pad * step)
    return count


def rarefied_map(
    steps: Sequence[Step], layers: Mapping[str, nn.Module], x: Tensor, dilation: int = 1
) -> Tensor:
    """The dense map (N, C, h, w) after ``steps`` with their strides left out."""
    for step in steps:
        x = _rarefied(step, layers, x, dilation)
        dilation *= step.geometry.stride
    return x


def _rarefied(step: Step, layers: Mapping[str, nn.Module], x: Tensor, dilation: int) -> Tensor:
    geometry = step.geometry
    if isinstance(step, Inception):
        maps = [rarefied_map(branch, layers, x, dilation) for branch in step.branches]
        return torch.cat(maps, 1)
    if isinstance(step, Convolve):
        layer = layers[step.name]
        assert isinstance(layer, Conv), layer
        pad = geometry.pad * dilation
        return F.relu_(
            F.conv2d(x, layer.weight, layer.bias, 1, pad, dilation=dilation, groups=step.groups)
        )
    if isinstance(step, MaxPool):
        before = geometry.pad * dilation
        reach = (geometry.kernel - 1) * dilation - before
        below, right = (
            dense_size(geometry, length, dilation) + reach - length for length in x.shape[2:]
        )
        x = F.pad(x, (before, right, before, below))  # zeros never win: nothing is negative
        return F.max_pool2d(x, geometry.kernel, stride=1, dilation=dilation)
    assert geometry == SAME, step
    return step.run(layers, x, Extents(None))
