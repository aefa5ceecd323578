"""Which part of each map is made for an image, and how small an image of zeros has the rest.

Positions are counted from the first zero of the first layer's padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from fcn_model.backbones.trunk import Trunk
from fcn_model.geometry import Interval, Layer, Window, before, window

WORTH = 0.8
"""A part is computed alone if it is at most this share of the map."""

SPARE = 1.05
"""To compute a part so much larger takes less time than to put its surroundings around it."""

Box = tuple[Interval, Interval]
"""Rows and columns."""


class Part(NamedTuple):
    """The part of a step's output that is computed, and what of its input that is made from."""

    size: tuple[int, int]
    """(height, width) of the whole output."""
    made: Box
    needed: Box


def parts(trunk: Trunk, size: tuple[int, int]) -> list[Part]:
    """For each of the first steps of a trunk, the part that is computed for an image of ``size``.

    It has all that the image can have changed, and may have more, so that the next step needs
    nothing else. The list ends before the first step that is better computed whole: the image's
    part has grown to the edge of that step's input, or to nearly all of its output.
    """
    path = _unpadded(trunk)
    changed = list(_changed(path, padded(trunk, size), _pad(trunk)))
    inputs = [padded(trunk, size), *(whole for whole, _ in changed)]
    found: list[Part] = []
    wanted: Box | None = None
    for layer, given, (whole, own) in reversed(list(zip(path, inputs, changed, strict=False))):
        made = own
        if (
            wanted
            and _area(wanted) <= SPARE * _area(own)
            and _inside(_before(layer, wanted), given)
        ):
            made = wanted
        wanted = _before(layer, made)
        found.append(Part(whole, made, wanted))
    return found[::-1]


def _changed(
    path: Sequence[Layer], size: tuple[int, int], pad: int
) -> Iterator[tuple[tuple[int, int], Box]]:
    """The sizes of the first maps, and the part of each that the image can have changed."""
    box: Box = ((pad, size[0] - pad), (pad, size[1] - pad))
    for layer in path:
        rows, columns = (_after(layer, part) for part in box)
        box = rows, columns
        if not _inside(_before(layer, box), size):
            return
        size = layer.output_size(size[0]), layer.output_size(size[1])
        if _area(box) > WORTH * size[0] * size[1]:
            return
        yield size, box


def _after(layer: Layer, inputs: Interval) -> Interval:
    """The outputs of a layer that see an input in an interval."""
    begin = -((layer.kernel - 1 - inputs[0] - layer.pad) // layer.stride)
    return begin, (inputs[1] - 1 + layer.pad) // layer.stride + 1


def _before(layer: Layer, box: Box) -> Box:
    return before(layer, box[0]), before(layer, box[1])


def _inside(box: Box, size: tuple[int, int]) -> bool:
    return all(begin >= 0 and end <= length for (begin, end), length in zip(box, size, strict=True))


def _area(box: Box) -> int:
    (top, bottom), (left, right) = box
    return (bottom - top) * (right - left)


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
