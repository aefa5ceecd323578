"""Shift-and-stitch: a trunk as it is on shifted inputs, what it gives interlaced.

See `stitching`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product

from torch import Tensor, nn

from fcn_model.backbones.steps import Step
from fcn_model.extents import Extents
from fcn_model.geometry import Layer, stride
from fcn_model.rarefaction import dense_size


class ShiftedExtents(Extents):
    """Where the ``size`` positions of a stride-1 map lie in the coarse maps of shifted inputs.

    ``step`` is the coarse maps' stride and ``shifts`` has the rows and columns before each image.
    """

    def __init__(
        self, size: tuple[int, int], shifts: Sequence[tuple[int, int]], step: int = 1
    ) -> None:
        self.size, self.shifts, self.step = size, shifts, step
        height, width = size
        self.starts = [(-(-y // step), -(-x // step)) for y, x in shifts]
        self.stops = [(-(-(height + y) // step), -(-(width + x) // step)) for y, x in shifts]
        super().__init__(self.stops)

    def through(self, path: Iterable[Layer]) -> ShiftedExtents:
        """The extents after the layers of ``path``."""
        (height, width), step = self.size, self.step
        for layer in path:
            height, width = (dense_size(layer, length, step) for length in (height, width))
            step *= layer.stride
        return ShiftedExtents((height, width), self.shifts, step)

    def clear_(self, map_NChw: Tensor) -> None:
        """Set the maps to zero where they hold none of the positions, in place."""
        super().clear_(map_NChw)
        for image_Chw, (top, left) in zip(map_NChw, self.starts, strict=True):
            image_Chw[:, :top] = 0
            image_Chw[:, :, :left] = 0


def dense_extent(path: Sequence[Layer], size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) of the stride-1 map after ``path`` for an image of ``size``."""
    return ShiftedExtents(size, ()).through(path).size


def shifts_of(path: Sequence[Layer], size: tuple[int, int]) -> list[tuple[int, int]]:
    """The (rows, columns) before an image of ``size`` that together give every position.

    A shift by s gives those that are -s modulo the stride, of which a small map has not all.
    """
    factor = stride(path)
    rows, columns = (range(min(factor, length)) for length in dense_extent(path, size))
    return [(-y % factor, -x % factor) for y, x in product(rows, columns)]


def stitched_map(
    steps: Sequence[Step],
    layers: Mapping[str, nn.Module],
    images_NCHW: Tensor,
    scores: Callable[[Tensor], Tensor],
    at_once: int,
) -> Tensor:
    """``scores`` of the dense map (N, C, h, w) after ``steps``, interlaced from shifted inputs."""
    count, _, *lengths = images_NCHW.shape
    size = (lengths[0], lengths[1])
    path = [step.geometry for step in steps]
    factor, shifts = stride(path), shifts_of(path, size)
    dense_NKhw: Tensor | None = None
    for start in range(0, len(shifts), at_once):
        batch = shifts[start : start + at_once]
        extents = ShiftedExtents(size, [shift for shift in batch for _ in range(count)])
        x = _shifted(images_NCHW, batch)
        for step in steps:
            extents = extents.through([step.geometry])
            x = step.run(layers, x, extents)
            extents.clear_(x)  # a pooling window that begins before the map reaches into it
        x = scores(x)
        if dense_NKhw is None:
            dense_NKhw = x.new_empty(count, x.shape[1], *extents.size)
        for index, (down, across) in enumerate(batch):
            first = index * count
            (top, left), (bottom, right) = extents.starts[first], extents.stops[first]
            part = x[first : first + count, :, top:bottom, left:right]
            dense_NKhw[:, :, -down % factor :: factor, -across % factor :: factor] = part
    assert dense_NKhw is not None, "every map has a position"
    return dense_NKhw


def _shifted(images_NCHW: Tensor, shifts: Sequence[tuple[int, int]]) -> Tensor:
    """(shifts N, C, ...): all images on one canvas, after the rows and columns of each shift."""
    count, channels, height, width = images_NCHW.shape
    below, right = (max(both[axis] for both in shifts) for axis in (0, 1))
    canvas = images_NCHW.new_zeros(len(shifts), count, channels, height + below, width + right)
    for slot, (y, x) in zip(canvas, shifts, strict=True):
        slot[..., y : y + height, x : x + width] = images_NCHW
    return canvas.flatten(0, 1)
