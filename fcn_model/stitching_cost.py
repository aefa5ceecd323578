"""What scores at every shift take: arithmetic and memory, from the layers.

Let a layer take m multiply-adds for one output position, and have n x n positions that lie d pixels
apart; f is the stride of the last. The network takes ``sum m n^2``, filter rarefaction
``sum m (d n)^2`` and shift-and-stitch ``sum m (f n)^2``: rarefaction repeats nothing, the shifts
compute each early layer ``(f / d)^2`` times over. In memory it is the other way round: a rarefied
map is ``d^2`` times as large as the network's, a shifted one as large.

FCN-32s VGG16 with 21 classes at 500 x 500 pixels, in float32 and one shift at a time:

    network        0.181 T multiply-adds,  0.25 GB
    rarefaction   37.795 T multiply-adds,  8.41 GB
    stitching    194.958 T multiply-adds,  0.29 GB
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fcn_model.backbones import backbone
from fcn_model.backbones.steps import Convolve, Inception, Step
from fcn_model.geometry import Layer
from fcn_model.rarefaction import dense_size
from fcn_model.shifts import dense_extent, shifts_of
from fcn_model.spec import NetworkSpec

_After = Callable[[Layer, int, int], int]
"""Positions after a layer on one axis, from those before it and the stride before it."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Multiply-adds of all convolutions, and the values in the maps that are held at one time.

    Held are the input and the output of a step (of an Inception module, the output twice, while its
    parts are joined) and the scores that are returned. Weights and what a convolution's algorithm
    needs besides come on top. A value is four bytes as float32.
    """

    multiply_adds: int
    values: int

    def __str__(self) -> str:
        return f"{self.multiply_adds / 1e12:8.3f} T multiply-adds, {self.values * 4 / 1e9:5.2f} GB"


def coarse_cost(spec: NetworkSpec, size: tuple[int, int]) -> Cost:
    """Of the network's own coarse scores for one image of ``size`` (height, width)."""
    return _cost(spec, size, _coarse)


def rarefied_cost(spec: NetworkSpec, size: tuple[int, int]) -> Cost:
    """Of `stitching.rarefied` for one such image."""
    return _cost(spec, size, dense_size)


def stitched_cost(spec: NetworkSpec, size: tuple[int, int]) -> Cost:
    """Of `stitching.stitched` for one such image and one shift at a time.

    With ``at_once`` shifts in a batch, ``at_once`` times the values are held, less the scores.
    """
    path = [step.geometry for step in backbone(spec).steps]
    height, width = dense_extent(path, size)
    passes = [_cost(spec, (size[0] + y, size[1] + x), _coarse) for y, x in shifts_of(path, size)]
    return Cost(
        multiply_adds=sum(one.multiply_adds for one in passes),
        values=max(one.values for one in passes) + height * width * _outputs(spec),
    )


def _outputs(spec: NetworkSpec) -> int:
    return sum(task.num_classes for task in spec.tasks)


def _coarse(layer: Layer, size: int, _step: int) -> int:
    return layer.output_size(size)


def _cost(spec: NetworkSpec, size: tuple[int, int], after: _After) -> Cost:
    trunk = backbone(spec)
    before, step = size[0] * size[1] * spec.in_channels, 1
    multiply_adds = held = 0
    for one in trunk.steps:
        size = (after(one.geometry, size[0], step), after(one.geometry, size[1], step))
        step *= one.geometry.stride
        made = size[0] * size[1] * one.channels
        multiply_adds += size[0] * size[1] * _per_position(one)
        held = max(held, before + made * (2 if isinstance(one, Inception) else 1))
        before = made
    scores = size[0] * size[1] * _outputs(spec)
    multiply_adds += scores * trunk.channels(trunk.top)
    return Cost(multiply_adds=multiply_adds, values=held + scores)


def _per_position(step: Step) -> int:
    """Multiply-adds for one position of the output."""
    if isinstance(step, Inception):
        return sum(_per_position(inner) for branch in step.branches for inner in branch)
    if isinstance(step, Convolve):
        return step.geometry.kernel**2 * step.channels_in // step.groups * step.channels
    return 0
