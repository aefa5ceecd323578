"""VGG16 as a feature extractor: the reference's trunk with fc6 and fc7 as convolutions.

Source: ``voc-fcn8s/net.py`` of shelhamer/fcn.berkeleyvision.org. conv1_1 pads by 100, which leaves
room for fc6 (7x7, no padding) on any image from 1x1; pooling rounds up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fcn_model.extents import Extents
from fcn_model.geometry import Layer
from fcn_model.layers import Conv
from fcn_model.spec import NetworkSpec

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and number of convolutions of each block; a pooling ends every block."""

FIRST_PAD = 100
POOL = Layer(kernel=2, stride=2, ceil=True)
FEATURES = ("pool3", "pool4", "fc7")


@dataclass(frozen=True)
class Step:
    """One layer of the sequence: a pooling, or a convolution with its ReLU (and dropout)."""

    name: str
    geometry: Layer
    channels_in: int
    channels_out: int
    dropout: str = ""

    @property
    def is_pool(self) -> bool:
        """Whether the step pools; else it convolves."""
        return self.name.startswith("pool")


class Vgg16:
    """The sequence of steps that a spec asks for; satisfies the `Backbone` contract."""

    def __init__(self, spec: NetworkSpec) -> None:
        self.dropout = spec.dropout
        self.steps = _steps(spec)

    def path(self, feature: str) -> tuple[Layer, ...]:
        """The layers from the image to ``feature``, which may be any step."""
        end = [step.name for step in self.steps].index(feature) + 1
        return tuple(step.geometry for step in self.steps[:end])

    def channels(self, feature: str) -> int:
        """How many channels ``feature`` has."""
        return next(step.channels_out for step in self.steps if step.name == feature)

    def make_layers(self) -> dict[str, nn.Module]:
        """Fresh layers by the paper's names; dropout is elementwise, as Caffe's is."""
        layers: dict[str, nn.Module] = {}
        for step in self.steps:
            if step.is_pool:
                continue
            layers[step.name] = Conv(
                step.channels_in,
                step.channels_out,
                step.geometry.kernel,
                padding=step.geometry.pad,
            )
            if step.dropout:
                layers[step.dropout] = nn.Dropout(self.dropout)
        return layers

    def run(
        self, layers: Mapping[str, nn.Module], images_N3HW: Tensor, extents: Extents
    ) -> dict[str, Tensor]:
        """pool3, pool4 and fc7 of a batch, zero outside each image's extent."""
        features = {}
        x = images_N3HW
        for step in self.steps:
            extents = extents.through([step.geometry])
            if step.is_pool:
                # Of maps that are nowhere negative, zeros beyond the extent never win a window.
                x = F.max_pool2d(x, step.geometry.kernel, step.geometry.stride, ceil_mode=True)
            else:
                x = layers[step.name](x)
                extents.clear_(x)
                x = F.relu_(x)
            if step.dropout:
                x = layers[step.dropout](x)
            if step.name in FEATURES:
                features[step.name] = x
        return features

    def imagenet_names(self) -> dict[str, str]:
        """Our layer names by torchvision's.

        ``features`` of torchvision's vgg16 is one sequence in which a convolution and its ReLU take
        two places and a pooling one; its classifier is Linear, ReLU, Dropout, Linear, ...
        """
        names, place = {}, 0
        for step in self.steps:
            if step.name.startswith("fc"):
                break
            if not step.is_pool:
                names[f"features.{place}"] = step.name
            place += 1 if step.is_pool else 2
        return names | {"classifier.0": "fc6", "classifier.3": "fc7"}


def _steps(spec: NetworkSpec) -> tuple[Step, ...]:
    steps = []
    channels = 3
    for block, (base, count) in enumerate(BLOCKS, start=1):
        wide = round(base * spec.width)
        for index in range(1, count + 1):
            pad = FIRST_PAD if (block, index) == (1, 1) else 1
            steps.append(Step(f"conv{block}_{index}", Layer(3, pad=pad), channels, wide))
            channels = wide
        steps.append(Step(f"pool{block}", POOL, channels, channels))
    fc = spec.fc_width
    steps.append(Step("fc6", Layer(7), channels, fc, dropout="drop6"))
    steps.append(Step("fc7", Layer(1), fc, fc, dropout="drop7"))
    return tuple(steps)
