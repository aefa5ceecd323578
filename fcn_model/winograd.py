"""3x3 convolutions with a quarter of the multiplications: Winograd's F(4x4, 3x3).

An output tile of 4 x 4 comes from an input tile of 6 x 6. Both and the weights are transformed so
that the convolution becomes 36 products of matrices, one for each position of a tile, with 36
multiplications for each channel and tile where the definition has 144 (Lavin and Gray 2015,
arXiv:1509.09308; the transforms are theirs). The transforms cost less than that where channels are
many. In float32 the largest error is some 1e-5 of the largest output with 256 channels; the tests
hold it to 1.5e-5. Gradients are had in the same way.

The products are one convolution of 1 x 1 in 36 groups, by oneDNN: torch's own products of matrices
are MKL's, which on CPUs that are not Intel's leaves half of the vector units idle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

OUT, IN = 4, 6
"""Positions of a tile on one axis."""

CHUNK_BYTES = 32 << 20
"""Of transformed tiles that are held at a time, where no gradient needs them."""

PIECE = 64
"""Tiles that are multiplied at a time. oneDNN has an order of weights for each number of them, and
to bring weights from one into another can take sixty times as long as the product."""


def _both_axes(rows: list[list[float]]) -> Tensor:
    """The transform of rows and columns at once, of that of one axis."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(matrix, matrix)


_INPUT = _both_axes(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
)
_WEIGHT = _both_axes(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
)
_OUTPUT = _both_axes(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
)
"""Lavin and Gray's B^T, G and A^T, of rows and columns at once."""


def transformed(weight_OCkk: Tensor) -> Tensor:
    """Weights (O, C, 3, 3) -> (36 O, C, 1, 1); in float32 in the order that oneDNN wants."""
    outputs, channels = weight_OCkk.shape[:2]
    taps = weight_OCkk.permute(2, 3, 0, 1).reshape(9, -1)
    matrix = _WEIGHT.to(weight_OCkk)
    weight = (matrix @ taps).view(IN * IN * outputs, channels, 1, 1)
    if weight.dtype != torch.float32:
        return weight
    size = 1, IN * IN * channels, PIECE, 1
    return torch.ops.mkldnn._reorder_convolution_weight(
        weight, (0, 0), (1, 1), (1, 1), IN * IN, size
    )


def convolved(input_NChw: Tensor, weight: Tensor, bias_O: Tensor | None, padding: int) -> Tensor:
    """The convolution (N, O, h', w') with `transformed` weights, channels last in memory."""
    count, channels, height, width = input_NChw.shape
    outputs = weight.shape[0] // (IN * IN)
    high, wide = height + 2 * padding - 2, width + 2 * padding - 2
    down, across = -(-high // OUT), -(-wide // OUT)
    output_NOhw = torch.empty(
        (count, outputs, high, wide),
        dtype=input_NChw.dtype,
        device=input_NChw.device,
        memory_format=torch.channels_last,
    )
    row_bytes = count * across * max(channels, outputs) * IN * IN * input_NChw.itemsize
    for top, bottom in _chunks(down, row_bytes):
        rows_NhwC = _filled(input_NChw, padding, (top, bottom), across)
        tiles_T4O = _output_tiles(_tiles(rows_NhwC), weight)
        tiles = tiles_T4O.view(count, bottom - top, across, OUT, OUT, outputs)
        rows = tiles.transpose(2, 3).reshape(count, -1, across * OUT, outputs)
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


def _filled(input_NChw: Tensor, padding: int, tiles: tuple[int, int], across: int) -> Tensor:
    """The input (N, h, w, C) of rows of ``tiles``, with padding and zeros that fill up the last."""
    height, width = input_NChw.shape[2:]
    top, bottom = tiles[0] * OUT - padding, tiles[1] * OUT + 2 - padding
    fill = padding, across * OUT + 2 - width - padding, max(0, -top), max(0, bottom - height)
    rows_NChw = input_NChw[:, :, max(0, top) : min(height, bottom)]
    return (F.pad(rows_NChw, fill) if any(fill) else rows_NChw).permute(0, 2, 3, 1)


def _tiles(input_NhwC: Tensor) -> Tensor:
    """Overlapping tiles: (T, 36, C)."""
    tiles = input_NhwC.unfold(1, IN, OUT).unfold(2, IN, OUT).permute(0, 1, 2, 4, 5, 3)
    return tiles.reshape(-1, IN * IN, input_NhwC.shape[3])


def _output_tiles(tiles_T36C: Tensor, weight: Tensor) -> Tensor:
    """Tiles of the input -> of the output, (T, 16, O), piece by piece while it is in the cache."""
    outputs = weight.shape[0] // (IN * IN)
    into, back = _INPUT.to(tiles_T36C), _OUTPUT.to(tiles_T36C)
    tiles_T4O = tiles_T36C.new_empty((len(tiles_T36C), OUT * OUT, outputs))
    for piece_T36C, piece_T4O in zip(
        torch.split(tiles_T36C, PIECE), torch.split(tiles_T4O, PIECE), strict=True
    ):
        torch.matmul(back, _products(into @ piece_T36C, weight), out=piece_T4O)
    return tiles_T4O


def _products(tiles_T36C: Tensor, weight: Tensor) -> Tensor:
    """Each position's channels by its own weights: (T, 36, O)."""
    count, positions, channels = tiles_T36C.shape
    filled = F.pad(tiles_T36C, (0, 0, 0, 0, 0, PIECE - count)) if count < PIECE else tiles_T36C
    given = filled.view(1, PIECE, 1, positions * channels).permute(0, 3, 1, 2)
    if weight.is_mkldnn:
        made = torch.ops.mkldnn._convolution_pointwise(
            given, weight, None, (0, 0), (1, 1), (1, 1), positions, "none", (), ""
        )
    else:
        made = F.conv2d(given, weight, groups=positions)
    return made.permute(0, 2, 3, 1).reshape(PIECE, positions, -1)[:count]


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
    @once_differentiable
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
    tiles_T36C = _tiles(_filled(input_NChw, padding, (0, down), across))
    tiles_T36C = _INPUT.to(input_NChw) @ tiles_T36C
    fill = (0, across * OUT - width, 0, down * OUT - height)
    gradient_NhwO = F.pad(gradient_NOhw, fill).permute(0, 2, 3, 1)
    tiles = gradient_NhwO.reshape(count, down, OUT, across, OUT, outputs).transpose(2, 3)
    back = _OUTPUT.to(input_NChw).t()
    gradient_T36O = back @ tiles.reshape(-1, OUT * OUT, outputs)
    products_36CO = torch.bmm(tiles_T36C.permute(1, 2, 0), gradient_T36O.transpose(0, 1))
    taps = _WEIGHT.to(input_NChw).t() @ products_36CO.view(IN * IN, -1)
    channels = input_NChw.shape[1]
    return taps.view(3, 3, channels, outputs).permute(3, 2, 0, 1)
