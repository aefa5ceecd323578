"""Which part of each map an image can have changed, and how small an image of zeros has the rest.

All on one axis at a time, in positions counted from the first zero of the first layer's padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from fcn_model.backbones.trunk import Trunk
from fcn_model.geometry import Interval, Layer, Window, before, window

WORTH = 0.8
"""A part is computed alone if it is at most this share of the map."""


class Stretch(NamedTuple):
    """One axis of a step's output: its length, and the part that the image can have changed."""

    length: int
    changed: Interval
    needed: Interval
    """What of the step's input that part is made from."""


class Area(NamedTuple):
    """Both axes of a step's output."""

    rows: Stretch
    columns: Stretch

    @property
    def share(self) -> float:
        """Of the map, how much the image can have changed."""
        parts = ((begin, end, length) for length, (begin, end), _ in self)
        (top, bottom, height), (left, right, width) = parts
        return (bottom - top) * (right - left) / (height * width)


def areas(trunk: Trunk, size: tuple[int, int]) -> list[Area]:
    """For each of the first steps of a trunk, the part that an image of ``size`` can have changed.

    The list ends before the first step that is better computed whole: the part has grown to the
    edge of that step's input, or to nearly all of its output.
    """
    path = _unpadded(trunk)
    found: list[Area] = []
    for rows, columns in zip(*(_stretches(path, _pad(trunk), n) for n in size), strict=False):
        area = Area(rows, columns)
        if area.share > WORTH:
            break
        found.append(area)
    return found


def _stretches(path: Sequence[Layer], pad: int, size: int) -> Iterator[Stretch]:
    length, begin, end = size + 2 * pad, pad, pad + size
    for layer in path:
        begin = -((layer.kernel - 1 - begin - layer.pad) // layer.stride)
        end = (end - 1 + layer.pad) // layer.stride + 1
        needed = before(layer, (begin, end))
        if needed[0] < 0 or needed[1] > length:
            return
        length = layer.output_size(length)
        yield Stretch(length, (begin, end), needed)


def middle(trunk: Trunk, steps: int) -> int:
    """The first output of the first ``steps`` that sees no padding but that of the first layer.

    In the maps of an image of zeros all outputs from here on have one value, up to those that see
    the padding at the other end.
    """
    return _middle(window(_unpadded(trunk)[:steps]))


def smallest(trunk: Trunk, steps: int, size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) of an image of zeros whose first maps have all values of a larger one's.

    The larger one is of ``size``; both include the padding of the first layer. Every map has its
    `middle`, and its end in the phase of the larger one's, so that poolings end alike.
    """
    path = _unpadded(trunk)[:steps]
    seen = [window(path[: count + 1]) for count in range(steps)]
    least = max(each.first + _middle(each) * each.stride + each.kernel for each in seen)
    phase = seen[-1].stride
    height, width = (min(n, least + (n - least) % phase) for n in size)
    return height, width


def padded(trunk: Trunk, size: tuple[int, int]) -> tuple[int, int]:
    """An image's (height, width) with the padding of the first layer."""
    return size[0] + 2 * _pad(trunk), size[1] + 2 * _pad(trunk)


def _pad(trunk: Trunk) -> int:
    return trunk.steps[0].geometry.pad


def _unpadded(trunk: Trunk) -> list[Layer]:
    """The layers on an image whose padding is part of it."""
    first, *others = (step.geometry for step in trunk.steps)
    return [replace(first, pad=0), *others]


def _middle(seen: Window) -> int:
    return -(seen.first // seen.stride)
