"""Kernels for a GPU where torch would write whole maps only to read them again; in Triton.

Each has an equal in plain torch, by which it is tested; see `masks` and `backbones.steps`.
"""

# Triton reads annotations of its own, and has no types.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fcn_model.geometry import Interval, Layer

ELEMENTS = 1024
"""That a program of a kernel without arithmetic moves."""


@triton.jit
def _enlarged_argmax(
    scores, kernel, masks, height, width, rows, columns, row_0, column_0,
    step_n, step_k, step_h, step_w,
    CLASSES: tl.constexpr, FACTOR: tl.constexpr, HIGH: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """A block of HIGH x WIDE pixels of one image: four taps for each class, the best class kept."""
    image = tl.program_id(2)
    row = tl.program_id(0) * HIGH + tl.arange(0, HIGH)
    column = tl.program_id(1) * WIDE + tl.arange(0, WIDE)
    below, right = (row + row_0) // FACTOR, (column + column_0) // FACTOR
    row_phase, column_phase = (row + row_0) % FACTOR, (column + column_0) % FACTOR
    # The lower tap has the first half of the kernel, the upper tap, one before it, the second.
    low = tl.load(kernel + row_phase) * (below < rows)
    high = tl.load(kernel + row_phase + FACTOR) * (below >= 1)
    near = tl.load(kernel + column_phase) * (right < columns)
    far = tl.load(kernel + column_phase + FACTOR) * (right >= 1)
    below_at = tl.minimum(below, rows - 1) * step_h
    above_at = tl.maximum(below - 1, 0) * step_h
    right_at = tl.minimum(right, columns - 1) * step_w
    left_at = tl.maximum(right - 1, 0) * step_w
    base = scores + image * step_n
    best = tl.full((HIGH, WIDE), float("-inf"), tl.float32)
    chosen = tl.full((HIGH, WIDE), 0, tl.int32)
    for index in range(CLASSES):
        at = base + index * step_k
        upper = tl.load(at + above_at[:, None] + left_at[None, :]) * far[None, :]
        upper += tl.load(at + above_at[:, None] + right_at[None, :]) * near[None, :]
        lower = tl.load(at + below_at[:, None] + left_at[None, :]) * far[None, :]
        lower += tl.load(at + below_at[:, None] + right_at[None, :]) * near[None, :]
        score = upper * high[:, None] + lower * low[:, None]
        better = score > best
        best = tl.where(better, score, best)
        chosen = tl.where(better, index, chosen)
    inside = (row < height)[:, None] & (column < width)[None, :]
    place = (image * height + row[:, None]) * width + column[None, :]
    tl.store(masks + place, chosen.to(tl.uint8), mask=inside)


def enlarged_argmax(
    scores_NKhw: Tensor, weights: Tensor, offset: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """(N, H, W) uint8: the best class of every pixel of scores enlarged by a bilinear kernel.

    ``weights`` are those of `layers.BilinearUpsample`; ``offset`` is where the window of ``size``
    begins in the enlarged map. Of equal scores the first class wins. No enlarged score is written.
    """
    count, classes, rows, columns = scores_NKhw.shape
    height, width = size
    masks = torch.empty((count, height, width), dtype=torch.uint8, device=scores_NKhw.device)
    high, wide = 8, 64
    _enlarged_argmax[(triton.cdiv(height, high), triton.cdiv(width, wide), count)](
        scores_NKhw, weights, masks, height, width, rows, columns, *offset, *scores_NKhw.stride(),
        CLASSES=classes, FACTOR=len(weights) // 2, HIGH=high, WIDE=wide,
    )  # fmt: skip
    return masks


@triton.jit
def _max_pool(
    x, y, total, height, width, rows, columns, channels,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PAD: tl.constexpr,
    PLACES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """PLACES output positions of channels-last maps, CHANNELS of each."""
    place = tl.program_id(0).to(tl.int64) * PLACES + tl.arange(0, PLACES)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    column, row = place % columns, place // columns % rows
    image = place // columns // rows
    live = (place < total)[:, None] & (channel < channels)[None, :]
    best = tl.full((PLACES, CHANNELS), float("-inf"), x.dtype.element_ty)
    for down in tl.static_range(KERNEL):
        for across in tl.static_range(KERNEL):
            high, wide = row * STRIDE - PAD + down, column * STRIDE - PAD + across
            inside = (high >= 0) & (high < height) & (wide >= 0) & (wide < width)
            at = ((image * height + high) * width + wide) * channels
            tap = tl.load(
                x + at[:, None] + channel[None, :],
                mask=live & inside[:, None],
                other=float("-inf"),
            )
            best = tl.maximum(best, tap, propagate_nan=tl.PropagateNan.ALL)
    tl.store(y + place[:, None] * channels + channel[None, :], best, mask=live)


def max_pool(x_NChw: Tensor, geometry: Layer) -> Tensor:
    """Pooling by the maximum, without the indices that torch writes too."""
    count, channels, height, width = x_NChw.shape
    rows, columns = geometry.output_size(height), geometry.output_size(width)
    y_NChw = _channels_last(x_NChw, (count, channels, rows, columns))
    total, wide = count * rows * columns, _block(channels)
    places = ELEMENTS // wide
    _max_pool[(triton.cdiv(total, places), triton.cdiv(channels, wide))](
        x_NChw.contiguous(memory_format=torch.channels_last), y_NChw,
        total, height, width, rows, columns, channels,
        KERNEL=geometry.kernel, STRIDE=geometry.stride, PAD=geometry.pad,
        PLACES=places, CHANNELS=wide,
    )  # fmt: skip
    return y_NChw


@triton.jit
def _response_norm(
    x, y, total, channels, scale, beta,
    SIZE: tl.constexpr, PLACES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """PLACES positions of channels-last maps, CHANNELS of each."""
    place = tl.program_id(0).to(tl.int64) * PLACES + tl.arange(0, PLACES)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    at, known = place[:, None] * channels, (place < total)[:, None]
    squares = tl.full((PLACES, CHANNELS), 0.0, tl.float32)
    for index in tl.static_range(SIZE):
        other = channel + index - SIZE // 2
        there = known & ((other >= 0) & (other < channels))[None, :]
        value = tl.load(x + at + other[None, :], mask=there, other=0).to(tl.float32)
        squares += value * value
    live = known & (channel < channels)[None, :]
    own = tl.load(x + at + channel[None, :], mask=live, other=0).to(tl.float32)
    result = own * tl.exp2(-beta * tl.log2(1 + scale * squares))
    tl.store(y + at + channel[None, :], result.to(y.dtype.element_ty), mask=live)


def response_norm(x_NChw: Tensor, size: int, alpha: float, beta: float) -> Tensor:
    """``F.local_response_norm``, which reads and writes the map seven times and more."""
    count, channels, height, width = x_NChw.shape
    y_NChw = _channels_last(x_NChw, (count, channels, height, width))
    total, wide = count * height * width, _block(channels)
    places = ELEMENTS // wide
    _response_norm[(triton.cdiv(total, places), triton.cdiv(channels, wide))](
        x_NChw.contiguous(memory_format=torch.channels_last), y_NChw,
        total, channels, alpha / size, beta, SIZE=size, PLACES=places, CHANNELS=wide,
    )  # fmt: skip
    return y_NChw


@triton.jit
def _surrounded(
    x, zeros, y, total, rows, columns, channels, x_rows, x_columns, zeros_columns,
    row_0, column_0, top, left, middle, more_rows, more_columns,
    PLACES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """PLACES output positions of channels-last maps, CHANNELS of each."""
    place = tl.program_id(0).to(tl.int64) * PLACES + tl.arange(0, PLACES)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    column, row = place % columns + column_0, place // columns % rows + row_0
    image = place // columns // rows
    live = (place < total)[:, None] & (channel < channels)[None, :]
    own_row, own_column = row - top, column - left
    made = (own_row >= 0) & (own_row < x_rows) & (own_column >= 0) & (own_column < x_columns)
    zero_row = row - tl.minimum(tl.maximum(row - middle, 0), more_rows)
    zero_column = column - tl.minimum(tl.maximum(column - middle, 0), more_columns)
    own_at = ((image * x_rows + own_row) * x_columns + own_column) * channels
    zero_at = (zero_row * zeros_columns + zero_column) * channels
    own = tl.load(x + own_at[:, None] + channel[None, :], mask=live & made[:, None], other=0)
    zero = tl.load(zeros + zero_at[:, None] + channel[None, :], mask=live & ~made[:, None], other=0)
    value = tl.where(made[:, None], own, zero)
    tl.store(y + place[:, None] * channels + channel[None, :], value, mask=live)


def surrounded(
    x_NChw: Tensor,
    zeros_1Chw: Tensor,
    middle: int,
    size: tuple[int, int],
    made: tuple[Interval, Interval],
    box: tuple[Interval, Interval],
) -> Tensor:
    """What `ring.Ring` puts around the part of a map that was made, in one pass over memory.

    ``x`` is rows and columns ``made`` of a map of ``size``; the result is rows and columns ``box``,
    of which all others are those of the map of zeros, repeated from ``middle`` on.
    """
    (top, _), (left, _) = made
    (row_0, bottom), (column_0, right) = box
    count, channels, x_rows, x_columns = x_NChw.shape
    rows, columns = bottom - row_0, right - column_0
    y_NChw = _channels_last(x_NChw, (count, channels, rows, columns))
    total, wide = count * rows * columns, _block(channels)
    places = ELEMENTS // wide
    zero_rows, zero_columns = zeros_1Chw.shape[2:]
    _surrounded[(triton.cdiv(total, places), triton.cdiv(channels, wide))](
        x_NChw.contiguous(memory_format=torch.channels_last),
        zeros_1Chw.contiguous(memory_format=torch.channels_last), y_NChw,
        total, rows, columns, channels, x_rows, x_columns, zero_columns, row_0, column_0, top, left,
        middle, size[0] - zero_rows, size[1] - zero_columns, PLACES=places, CHANNELS=wide,
    )  # fmt: skip
    return y_NChw


@triton.jit
def _rectified(
    x, weights, bias, y, total, height, width, rows, columns,
    IN: tl.constexpr, OUT: tl.constexpr, KERNEL: tl.constexpr, STRIDE: tl.constexpr,
    PAD: tl.constexpr, PLACES: tl.constexpr, CHANNELS: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """PLACES output positions times CHANNELS outputs: a product over TAPS taps at a time."""
    place = tl.program_id(0).to(tl.int64) * PLACES + tl.arange(0, PLACES)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    column, row = place % columns, place // columns % rows
    image = place // columns // rows
    top, left = row * STRIDE - PAD, column * STRIDE - PAD
    sums = tl.full((PLACES, CHANNELS), 0.0, tl.float32)
    for start in range(0, KERNEL * KERNEL * IN, TAPS):
        tap = start + tl.arange(0, TAPS)
        high = top[:, None] + (tap // IN // KERNEL)[None, :]
        wide = left[:, None] + (tap // IN % KERNEL)[None, :]
        known = tap < KERNEL * KERNEL * IN
        inside = (high >= 0) & (high < height) & (wide >= 0) & (wide < width)
        inside = inside & known[None, :] & (place < total)[:, None]
        at = ((image[:, None] * height + high) * width + wide) * IN + (tap % IN)[None, :]
        values = tl.load(x + at, mask=inside, other=0)
        at = tap[:, None] * OUT + channel[None, :]
        matrix = tl.load(weights + at, mask=known[:, None] & (channel < OUT)[None, :], other=0)
        sums += tl.dot(values, matrix)
    sums += tl.load(bias + channel, mask=channel < OUT, other=0).to(tl.float32)[None, :]
    live = (place < total)[:, None] & (channel < OUT)[None, :]
    result = tl.maximum(sums, 0.0, propagate_nan=tl.PropagateNan.ALL).to(y.dtype.element_ty)
    tl.store(y + place[:, None] * OUT + channel[None, :], result, mask=live)


def rectified(
    x_NChw: Tensor, weight_OCkk: Tensor, bias_O: Tensor, *, stride: int, padding: int
) -> Tensor:
    """Convolution, bias and ReLU for an input of few channels, as images are; in half precision.

    cuDNN's kernels for half precision are made for channels by the dozen, and take several times
    the time that the output takes to be written.
    """
    count, channels, height, width = x_NChw.shape
    outputs, _, kernel, _ = weight_OCkk.shape
    rows, columns = ((n + 2 * padding - kernel) // stride + 1 for n in (height, width))
    y_NChw = _channels_last(x_NChw, (count, outputs, rows, columns))
    total, wide, places = count * rows * columns, max(16, _block(outputs)), 128
    _rectified[(triton.cdiv(total, places), triton.cdiv(outputs, wide))](
        x_NChw.contiguous(memory_format=torch.channels_last),
        weight_OCkk.permute(2, 3, 1, 0).contiguous(), bias_O, y_NChw,
        total, height, width, rows, columns,
        IN=channels, OUT=outputs, KERNEL=kernel, STRIDE=stride, PAD=padding,
        PLACES=places, CHANNELS=wide, TAPS=32,
    )  # fmt: skip
    return y_NChw


def _channels_last(like: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
    )


def _block(channels: int) -> int:
    """Channels that a program takes."""
    wide: int = triton.next_power_of_2(channels)
    return min(64, wide)
