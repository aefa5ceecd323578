"""Pooling by the maximum, in the way that takes the least time where no gradient is wanted."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from fcn_model.geometry import Layer
from fcn_model.precision import has_kernels


def max_pool(x_NChw: Tensor, geometry: Layer) -> Tensor:
    """``F.max_pool2d``. What is not a number stays none."""
    g, learns = geometry, torch.is_grad_enabled()
    if not learns and has_kernels(x_NChw.device):
        from fcn_model import triton_kernels  # noqa: PLC0415

        return triton_kernels.max_pool(x_NChw, g)
    if not learns and x_NChw.device.type == "cpu" and (g.kernel, g.stride, g.pad) == (2, 2, 0):
        return _by_pairs(x_NChw, g)
    return F.max_pool2d(x_NChw, g.kernel, g.stride, g.pad, ceil_mode=g.ceil)


def _by_pairs(x_NChw: Tensor, geometry: Layer) -> Tensor:
    """The larger of two rows, then of two columns.

    torch writes where each maximum was, too: eight bytes each, in memory that is new each time.
    """
    y = x_NChw.permute(0, 2, 3, 1)  # as it lies in memory
    for axis in (1, 2):
        shape, length = [*y.shape], y.shape[axis]
        shape[axis] = geometry.output_size(length)
        pooled = y.new_empty(shape)
        even, odd = (y[(slice(None),) * axis + (slice(start, None, 2),)] for start in (0, 1))
        half = length // 2
        torch.maximum(even.narrow(axis, 0, half), odd, out=pooled.narrow(axis, 0, half))
        if shape[axis] > half:
            pooled.select(axis, -1).copy_(y.select(axis, -1))
        y = pooled
    return y.permute(0, 3, 1, 2)
