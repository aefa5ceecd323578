"""How an image is cut into tiles: windows within a budget that recompute as little as they can."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from fcn_model.cones import Cone, cone_of
from fcn_model.geometry import Layer
from fcn_model.spec import NetworkSpec


class Strip(NamedTuple):
    """One axis of a tile: positions [begin, end) of the mask, made from a window [start, stop).

    The window is counted from the first zero of the network's padding, ``pad`` before the image.
    """

    begin: int
    end: int
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class TilePlan:
    """How an image of ``size``, (height, width), is cut: every strip of rows by every of columns.

    ``first`` is the first convolution, whose map is the largest of a pass; ``pad`` its padding.
    """

    size: tuple[int, int]
    rows: tuple[Strip, ...]
    columns: tuple[Strip, ...]
    first: Layer
    pad: int

    @property
    def tiles(self) -> Iterator[tuple[Strip, Strip]]:
        """Rows and columns of each tile, in the order of reading."""
        return itertools.product(self.rows, self.columns)

    @property
    def count(self) -> int:
        """Passes through the network."""
        return len(self.rows) * len(self.columns)

    @property
    def window(self) -> tuple[int, int]:
        """(height, width) of the largest window in pixels, zeros of the padding included."""
        height, width = (
            max(strip.stop - strip.start for strip in axis) for axis in (self.rows, self.columns)
        )
        return height, width

    @property
    def pixels(self) -> int:
        """Positions of the first convolution's map in the largest pass: what takes the memory."""
        height, width = self.window
        return self.first.output_size(height) * self.first.output_size(width)

    @property
    def overhead(self) -> float:
        """Pixels of all windows for each pixel of the image: what takes the time."""
        rows, columns = (
            sum(strip.stop - strip.start for strip in axis) for axis in (self.rows, self.columns)
        )
        return rows * columns / (self.size[0] * self.size[1])


@dataclass(frozen=True)
class _Axis:
    """One axis of an image, cut into windows that start ``step`` pixels after one another."""

    cone: Cone
    size: int

    @property
    def length(self) -> int:
        """Pixels and the zeros around them."""
        return self.size + 2 * self.cone.pad

    @property
    def reach(self) -> int:
        """What the steps have to cover: the last window overlaps as every other does."""
        return max(1, self.length - self.cone.seam.overlap)

    def count(self, step: int) -> int:
        """How many windows there are."""
        return -(-self.reach // step)

    def window(self, step: int) -> int:
        """The length of the longest window."""
        return min(self.length, step + self.cone.seam.overlap)

    def work(self, step: int) -> int:
        """The length of all windows together."""
        return self.length + (self.count(step) - 1) * self.cone.seam.overlap

    def even(self, count: int) -> int:
        """The step of at most ``count`` windows of nearly one length."""
        share = -(-self.reach // count)
        return -(-share // self.cone.stride) * self.cone.stride

    def steps(self) -> Iterator[int]:
        """Every step worth trying, long to short."""
        step = self.even(1)
        yield step
        while step > self.cone.stride:
            step = self.even(self.count(step - self.cone.stride))
            yield step

    def fitting(self, longest: int) -> int | None:
        """The step of the fewest windows not longer than ``longest``; None if all are longer."""
        if self.length <= longest:
            return self.even(1)
        step = (longest - self.cone.seam.overlap) // self.cone.stride * self.cone.stride
        return self.even(self.count(step)) if step > 0 else None

    def strips(self, step: int) -> tuple[Strip, ...]:
        """The windows, and the positions of the mask that each makes."""
        starts = range(0, self.reach, step)
        cuts = [0, *(start + self.cone.seam.lead for start in starts[1:]), self.size]
        return tuple(
            Strip(begin, end, start, min(self.length, start + step + self.cone.seam.overlap))
            for begin, end, start in zip(cuts, cuts[1:], starts, strict=False)
        )


def tile_plan(spec: NetworkSpec, size: tuple[int, int], tile_pixels: int) -> TilePlan:
    """The tiles of an image of ``size``, (height, width), that recompute least within a budget.

    ``tile_pixels`` bounds `TilePlan.pixels`. Where it is too small for a cone and one step of the
    trunk's stride, the plan has the smallest windows that work, which exceed it. Raises ValueError
    for a size or a budget below 1.
    """
    if min(size) < 1 or tile_pixels < 1:
        raise ValueError(
            f"an image and tile_pixels must be at least 1, got an image of {size[0]} x {size[1]} "
            f"(height x width) and tile_pixels {tile_pixels}"
        )
    cone = cone_of(spec)
    height, width = (_Axis(cone, extent) for extent in size)
    first = cone.first
    choices = []
    for high in height.steps():
        columns = tile_pixels // first.output_size(height.window(high))
        wide = width.fitting((columns - 1) * first.stride + first.kernel)
        if wide is not None:
            passes = height.count(high) * width.count(wide)
            choices.append((height.work(high) * width.work(wide), passes, high, wide))
    *_, high, wide = min(choices, default=(cone.stride, cone.stride))
    return TilePlan(
        size=size,
        rows=height.strips(high),
        columns=width.strips(wide),
        first=first,
        pad=cone.pad,
    )


def plans(
    spec: NetworkSpec, size: tuple[int, int], tile_pixels: int, *, below: int
) -> Iterator[TilePlan]:
    """Plans for ever less memory: each within half of what the one before it takes in a pass.

    The first is within ``tile_pixels``; all are below ``below``, so there may be none. The last
    has the smallest tiles.
    """
    plan = tile_plan(spec, size, tile_pixels)
    while plan.pixels < below:
        yield plan
        below = plan.pixels
        plan = tile_plan(spec, size, max(1, below // 2))
