"""Coordinate arithmetic of layers: sizes, strides, receptive fields and crop offsets.

Layers in a row are one layer again: ``f_ks ∘ g_k's' = (f ∘ g)_{k' + (k-1)s', ss'}`` (paper, section
3), which `Window` is in code. A layer maps output coordinates to input coordinates by
``x_in = s x_out + (k-1)/2 - p``; a transposed one the other way round. Composed along a path these
maps say which image coordinate a score belongs to, and two paths that meet must agree on it: that
is the crop (Caffe's ``coord_map.py``). All arithmetic is exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from fcn_model.errors import SpecError

Interval = tuple[int, int]
"""Positions [start, stop) on one axis."""


@dataclass(frozen=True)
class Layer:
    """The spatial part of a convolution, pooling or (``transposed``) upsampling, on one axis.

    ``pad`` is added at both ends; ``ceil`` rounds the number of windows up, as in Caffe's pooling.
    """

    kernel: int
    stride: int = 1
    pad: int = 0
    ceil: bool = False
    transposed: bool = False

    def output_size(self, size: int) -> int:
        """How many outputs ``size`` inputs give. Raises SpecError where not even one fits."""
        if self.transposed:
            return (size - 1) * self.stride + self.kernel - 2 * self.pad
        span = size + 2 * self.pad - self.kernel
        steps = -(-span // self.stride) if self.ceil else span // self.stride
        if self.ceil and steps * self.stride >= size + self.pad:
            steps -= 1  # a last window that starts beyond the input is left out
        if steps < 0:
            raise SpecError(f"{size} inputs are fewer than {self} needs for one output")
        return steps + 1


@dataclass(frozen=True)
class Coordinates:
    """Where output x of a path lies in the image: at ``scale * x + offset`` pixels."""

    scale: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)

    def then(self, other: Coordinates) -> Coordinates:
        """The coordinates of a map that has ``other`` in this one."""
        return Coordinates(self.scale * other.scale, self.offset + self.scale * other.offset)

    def through(self, layer: Layer) -> Coordinates:
        """The coordinates of what ``layer`` makes of this map."""
        centre = Fraction(layer.kernel - 1, 2) - layer.pad
        if layer.transposed:
            scale = Fraction(1, layer.stride)
            return self.then(Coordinates(scale, -scale * centre))
        return self.then(Coordinates(Fraction(layer.stride), centre))


@dataclass(frozen=True)
class Window:
    """Convolutions and poolings in a row as the one layer that they are, on one axis.

    Output x sees the ``kernel`` pixels around ``coordinates.scale * x + coordinates.offset``; some
    of them may lie in the padding. The default is no layer at all.
    """

    kernel: int = 1
    coordinates: Coordinates = Coordinates()

    @property
    def stride(self) -> int:
        """Image pixels from one output to the next."""
        return _whole(self.coordinates.scale, "the stride")

    @property
    def offset(self) -> Fraction:
        """Where the centre of output 0 lies in the image."""
        return self.coordinates.offset

    @property
    def first(self) -> int:
        """The first pixel that output 0 sees; negative if that is padding."""
        return _whole(self.offset - Fraction(self.kernel - 1, 2), "the first pixel")

    def then(self, other: Window) -> Window:
        """Both in a row: kernel ``k' + (k-1)s'`` and stride ``ss'``, where this is ``k's'``.

        Associative.
        """
        kernel = self.kernel + (other.kernel - 1) * self.stride
        return Window(kernel, self.coordinates.then(other.coordinates))

    @classmethod
    def of(cls, layer: Layer) -> Window:
        """One layer. Raises SpecError for upsampling, whose outputs do not all see as much."""
        if layer.transposed:
            raise SpecError("the receptive field is defined here for paths without upsampling")
        return cls(layer.kernel, Coordinates().through(layer))


def window(path: Iterable[Layer]) -> Window:
    """A path of convolutions and poolings composed. Raises SpecError where it enlarges."""
    whole = Window()
    for layer in path:
        whole = whole.then(Window.of(layer))
    return whole


def coordinates(path: Iterable[Layer]) -> Coordinates:
    """Where the outputs at the end of ``path``, which may enlarge, lie in the image."""
    here = Coordinates()
    for layer in path:
        here = here.through(layer)
    return here


def output_size(path: Sequence[Layer], size: int) -> int:
    """The size at the end of ``path`` of an image of ``size`` pixels on this axis."""
    for layer in path:
        size = layer.output_size(size)
    return size


def stride(path: Sequence[Layer]) -> int:
    """Image pixels from one output to the next. Raises SpecError where that is no whole number."""
    return _whole(coordinates(path).scale, "the stride")


def receptive_field(path: Sequence[Layer]) -> int:
    """How many image pixels on one axis an output at the end of a path of convolutions sees."""
    return window(path).kernel


def crop_offset(larger: Sequence[Layer], reference: Sequence[Layer]) -> int:
    """Where the map at the end of ``reference`` begins within the map at the end of ``larger``.

    Raises SpecError if the two have different strides, if the offset is no whole number, or if it
    is negative: then no crop aligns them.
    """
    offset = alignment(larger, reference)
    if offset < 0:
        raise SpecError(f"the crop offset must not be negative, got {offset}")
    return offset


def alignment(larger: Sequence[Layer], reference: Sequence[Layer]) -> int:
    """The same, or, negative, how far ``reference`` begins before ``larger`` does."""
    big, small = coordinates(larger), coordinates(reference)
    if big.scale != small.scale:
        raise SpecError(
            f"a crop needs two maps of one stride, got strides {big.scale} and {small.scale}"
        )
    return _whole((small.offset - big.offset) / big.scale, "the crop offset")


def before(layer: Layer, outputs: Interval) -> Interval:
    """The inputs of ``layer`` that enter the outputs in an interval; some may be padding."""
    first, last = outputs[0], outputs[1] - 1
    if layer.transposed:
        first, last = first + layer.pad, last + layer.pad
        # Input i is spread over the outputs from i * stride to i * stride + kernel - 1.
        return -((layer.kernel - 1 - first) // layer.stride), last // layer.stride + 1
    return first * layer.stride - layer.pad, last * layer.stride - layer.pad + layer.kernel


def trimmed(count: int) -> Layer:
    """What dropping the first ``count`` positions does to coordinates (not to sizes)."""
    return Layer(2 * count + 1)


def _whole(value: Fraction, what: str) -> int:
    if value.denominator != 1:
        raise SpecError(f"{what} must be a whole number, got {value}")
    return value.numerator
