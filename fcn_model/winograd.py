"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3).

An output tile of 4 x 4 comes from an input tile of 6 x 6. Both and the weights are transformed so
that the convolution becomes 36 products of matrices, one for each position of a tile, with 36
multiplications for each channel and tile where the definition has 144 (Lavin and Gray 2015,
arXiv:1509.09308; the transforms are theirs). The transforms cost less than that where channels are
many. In float32 the largest error is three times that of torch's own convolution, below 1e-5 of the
largest output; the tests hold it to that. Gradients are had in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

OUT, IN = 4, 6
"""Positions of a tile on one axis."""

CHUNK_BYTES = 8 << 20
"""Of transformed tiles that are held at a time, where no gradient needs them."""

_INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
_WEIGHT = torch.tensor(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
    dtype=torch.float64,
)
_OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
    dtype=torch.float64,
)
"""Lavin and Gray's B^T, G and A^T."""


def transformed(weight_OCkk: Tensor) -> Tensor:
    """Weights (O, C, 3, 3) -> (36, C, O)."""
    outputs, channels = weight_OCkk.shape[:2]
    matrix = _both_axes(_WEIGHT, weight_OCkk)
    taps = weight_OCkk.permute(2, 3, 1, 0).reshape(9, -1)
    return (matrix @ taps).view(IN * IN, channels, outputs)


def convolved(
    input_NChw: Tensor, weight_36CO: Tensor, bias_O: Tensor | None, padding: int
) -> Tensor:
    """The convolution (N, O, h', w') with `transformed` weights, channels last in memory."""
    count, channels, height, width = input_NChw.shape
    outputs = weight_36CO.shape[2]
    high, wide = height + 2 * padding - 2, width + 2 * padding - 2
    down, across = -(-high // OUT), -(-wide // OUT)
    input_NhwC = _filled(input_NChw, padding, down, across)
    output_NOhw = torch.empty(
        (count, outputs, high, wide),
        dtype=input_NChw.dtype,
        device=input_NChw.device,
        memory_format=torch.channels_last,
    )
    matrix = _both_axes(_OUTPUT, input_NChw)
    for top, bottom in _chunks(down, count * across * channels * IN * IN * input_NChw.itemsize):
        tiles_36TC = _input_tiles(input_NhwC[:, top * OUT : bottom * OUT + 2])
        products = torch.bmm(tiles_36TC, weight_36CO).view(IN * IN, -1)
        tiles = (matrix @ products).view(OUT, OUT, count, bottom - top, across, outputs)
        rows = tiles.permute(2, 3, 0, 4, 1, 5).reshape(count, -1, across * OUT, outputs)
        part = output_NOhw.permute(0, 2, 3, 1)[:, top * OUT : bottom * OUT]
        rows = rows[:, : part.shape[1], :wide]
        if bias_O is None:
            part.copy_(rows)
        else:
            torch.add(rows, bias_O, out=part)
    return output_NOhw


def _chunks(rows: int, row_bytes: int) -> Iterator[tuple[int, int]]:
    step = max(1, CHUNK_BYTES // row_bytes)
    for top in range(0, rows, step):
        yield top, min(rows, top + step)


def _filled(input_NChw: Tensor, padding: int, down: int, across: int) -> Tensor:
    """(N, h, w, C) with its padding, and zeros that fill up the last tiles."""
    height, width = input_NChw.shape[2:]
    bottom, right = down * OUT + 2 - height - padding, across * OUT + 2 - width - padding
    if padding or bottom or right:
        input_NChw = F.pad(input_NChw, (padding, right, padding, bottom))
    return input_NChw.permute(0, 2, 3, 1)


def _input_tiles(input_NhwC: Tensor) -> Tensor:
    """Overlapping tiles, transformed: (36, T, C)."""
    tiles = input_NhwC.unfold(1, IN, OUT).unfold(2, IN, OUT).permute(4, 5, 0, 1, 2, 3)
    channels = input_NhwC.shape[3]
    matrix = _both_axes(_INPUT, input_NhwC)
    return (matrix @ tiles.reshape(IN * IN, -1)).view(IN * IN, -1, channels)


def _both_axes(matrix: Tensor, like: Tensor) -> Tensor:
    """The transform of rows and columns at once."""
    return torch.kron(matrix, matrix).to(like)


class Winograd(torch.autograd.Function):
    """`convolved` of weights (O, C, 3, 3), with its gradients."""

    @staticmethod
    def forward(
        ctx: Any, input_NChw: Tensor, weight_OCkk: Tensor, bias_O: Tensor, padding: int
    ) -> Tensor:
        """The convolution."""
        ctx.save_for_backward(input_NChw, weight_OCkk)
        ctx.padding = padding
        return convolved(input_NChw, transformed(weight_OCkk), bias_O, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of input, weight and bias."""
        (gradient_NOhw,) = gradients
        input_NChw, weight_OCkk = ctx.saved_tensors
        of_input = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            turned_COkk = weight_OCkk.flip(2, 3).transpose(0, 1)
            of_input = convolved(gradient_NOhw, transformed(turned_COkk), None, 2 - ctx.padding)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(input_NChw, gradient_NOhw, ctx.padding)
        if ctx.needs_input_grad[2]:
            of_bias = gradient_NOhw.sum((0, 2, 3))
        return of_input, of_weight, of_bias, None


def _weight_gradient(input_NChw: Tensor, gradient_NOhw: Tensor, padding: int) -> Tensor:
    """(O, C, 3, 3): every tile's input and gradient, multiplied where `convolved` multiplies."""
    count, outputs, height, width = gradient_NOhw.shape
    down, across = -(-height // OUT), -(-width // OUT)
    tiles_36TC = _input_tiles(_filled(input_NChw, padding, down, across))
    fill = (0, across * OUT - width, 0, down * OUT - height)
    gradient_NhwO = F.pad(gradient_NOhw, fill).permute(0, 2, 3, 1)
    tiles = gradient_NhwO.reshape(count, down, OUT, across, OUT, outputs).permute(2, 4, 0, 1, 3, 5)
    back = _both_axes(_OUTPUT, input_NChw).t()
    gradient_36TO = (back @ tiles.reshape(OUT * OUT, -1)).view(IN * IN, -1, outputs)
    products_36CO = torch.bmm(tiles_36TC.transpose(1, 2), gradient_36TO)
    taps = _both_axes(_WEIGHT, input_NChw).t() @ products_36CO.view(IN * IN, -1)
    channels = input_NChw.shape[1]
    return taps.view(3, 3, channels, outputs).permute(3, 2, 0, 1)
