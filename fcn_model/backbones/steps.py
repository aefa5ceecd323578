"""The kinds of layer that feature extractors are made of, as values, and what it takes to run them.

A step holds no tensors: its layer, if it has one, is looked up by name. Whoever runs the steps in
another way (see `stitching`) needs only these values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fcn_model.extents import Extents
from fcn_model.geometry import Layer
from fcn_model.layers import Conv
from fcn_model.pooling import max_pool
from fcn_model.precision import has_kernels

SAME = Layer(1)
"""The geometry of what leaves every position where it is."""


class WithoutLayers:
    """A step that has nothing to learn."""

    def make_layers(self) -> dict[str, nn.Module]:
        """No layer."""
        return {}


@dataclass(frozen=True)
class Convolve:
    """A convolution with bias and the ReLU after it."""

    name: str
    geometry: Layer
    channels_in: int
    channels: int
    groups: int = 1

    def make_layers(self) -> dict[str, nn.Module]:
        """A fresh convolution."""
        layer = Conv(
            self.channels_in,
            self.channels,
            self.geometry.kernel,
            stride=self.geometry.stride,
            padding=self.geometry.pad,
            groups=self.groups,
        )
        return {self.name: layer}

    def run(self, layers: Mapping[str, nn.Module], x: Tensor, extents: Extents) -> Tensor:
        """Convolve, put zeros outside each image's ``extents`` after the step, rectify."""
        layer = layers[self.name]
        if not torch.is_grad_enabled():
            x = layer.rectified(x)  # type: ignore[operator]
            extents.clear_(x)
            return x
        x = layer(x)
        extents.clear_(x)
        return F.relu_(x)


@dataclass(frozen=True)
class MaxPool(WithoutLayers):
    """Pooling by the maximum. Its input is nowhere negative, so zeros never win a window."""

    name: str
    geometry: Layer
    channels: int

    def run(self, _layers: Mapping[str, nn.Module], x: Tensor, extents: Extents) -> Tensor:
        """Pool; windows that overlap reach into an image from outside its ``extents``."""
        x = max_pool(x, self.geometry)
        if self.geometry.kernel > self.geometry.stride:
            extents.clear_(x)
        return x


@dataclass(frozen=True)
class AveragePool(WithoutLayers):
    """Pooling by the mean of whole windows: the last layer before GoogLeNet's classifier."""

    name: str
    geometry: Layer
    channels: int

    def run(self, _layers: Mapping[str, nn.Module], x: Tensor, _extents: Extents) -> Tensor:
        """Pool."""
        return F.avg_pool2d(x, self.geometry.kernel, self.geometry.stride)


@dataclass(frozen=True)
class ResponseNorm(WithoutLayers):
    """Local response normalization over ``size`` neighbouring channels, as Caffe and torch do it.

    ``x / (1 + alpha / size * sum of squares) ** beta``; zeros stay zeros.
    """

    name: str
    channels: int
    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    geometry: Layer = SAME

    def run(self, _layers: Mapping[str, nn.Module], x: Tensor, _extents: Extents) -> Tensor:
        """Normalize; halves are widened, since torch does not average them on every device."""
        if has_kernels(x.device) and not torch.is_grad_enabled():
            from fcn_model.triton_kernels import response_norm  # noqa: PLC0415

            return response_norm(x, self.size, self.alpha, self.beta)
        wide = x if x.dtype in (torch.float32, torch.float64) else x.float()
        return F.local_response_norm(wide, self.size, self.alpha, self.beta).to(x.dtype)


@dataclass(frozen=True)
class Drop:
    """Elementwise dropout, as Caffe's."""

    name: str
    channels: int
    share: float
    geometry: Layer = SAME

    def make_layers(self) -> dict[str, nn.Module]:
        """The dropout, which sleeps in evaluation mode."""
        return {self.name: nn.Dropout(self.share)}

    def run(self, layers: Mapping[str, nn.Module], x: Tensor, _extents: Extents) -> Tensor:
        """Drop."""
        return layers[self.name](x)


@dataclass(frozen=True)
class Inception:
    """Chains of steps side by side, their outputs concatenated along channels.

    Every chain keeps the size of the map; the geometry is that of the chain that sees most.
    """

    name: str
    branches: tuple[tuple[Step, ...], ...]

    @property
    def channels(self) -> int:
        """The channels of all branches together."""
        return sum(branch[-1].channels for branch in self.branches)

    @property
    def geometry(self) -> Layer:
        """The widest branch as one layer of stride 1."""
        reach = max(
            sum(step.geometry.kernel - 1 for step in branch) // 2 for branch in self.branches
        )
        return Layer(2 * reach + 1, pad=reach)

    def make_layers(self) -> dict[str, nn.Module]:
        """The layers of all branches, which have names of their own."""
        return make_layers(step for branch in self.branches for step in branch)

    def run(self, layers: Mapping[str, nn.Module], x: Tensor, extents: Extents) -> Tensor:
        """Run every branch on ``x``; all maps in here have the same extents."""
        outputs = []
        for branch in self.branches:
            y = x
            for step in branch:
                y = step.run(layers, y, extents)
            outputs.append(y)
        return torch.cat(outputs, 1)


Step = Convolve | MaxPool | AveragePool | ResponseNorm | Drop | Inception


def make_layers(steps: Iterable[Step]) -> dict[str, nn.Module]:
    """Fresh layers of ``steps`` by name."""
    layers: dict[str, nn.Module] = {}
    for step in steps:
        layers |= step.make_layers()
    return layers


def scaled(channels: int, width: float, multiple: int = 1) -> int:
    """``channels`` times ``width``, a multiple of ``multiple`` and at least that."""
    return max(1, round(channels * width / multiple)) * multiple
