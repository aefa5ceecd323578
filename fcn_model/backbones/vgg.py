"""VGG16 as a feature extractor: the reference's trunk with fc6 and fc7 as convolutions.

Source: ``voc-fcn8s/net.py`` of shelhamer/fcn.berkeleyvision.org. conv1_1 pads by 100, which leaves
room for fc6 (7x7, no padding) on any image from 1x1; pooling rounds up.
"""

from __future__ import annotations

from fcn_model.backbones.steps import Convolve, Drop, MaxPool, Step, scaled
from fcn_model.backbones.trunk import Trunk
from fcn_model.geometry import Layer
from fcn_model.spec import NetworkSpec

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Channels and number of convolutions of each block; a pooling ends every block."""

POOL = Layer(kernel=2, stride=2, ceil=True)
NATIVE_PAD = 1


def vgg16(spec: NetworkSpec, channels: int, first_pad: int | None) -> Trunk:
    """The trunk for images of so many channels; ``first_pad`` None is the classifier's own."""
    steps: list[Step] = []
    pad = NATIVE_PAD if first_pad is None else first_pad
    for block, (base, count) in enumerate(BLOCKS, start=1):
        wide = scaled(base, spec.width)
        for index in range(1, count + 1):
            steps.append(Convolve(f"conv{block}_{index}", Layer(3, pad=pad), channels, wide))
            channels, pad = wide, 1
        steps.append(MaxPool(f"pool{block}", POOL, channels))
    names = _torchvision_names(steps)
    steps += fully_connected(spec, Layer(7), channels)
    return Trunk(
        steps=tuple(steps),
        top="drop7",
        skips=("pool4", "pool3"),
        imagenet_names=names | {"classifier.0": "fc6", "classifier.3": "fc7"},
        fully_connected=("fc6", "fc7"),
        classifier="classifier.6",
    )


def fully_connected(spec: NetworkSpec, fc6: Layer, channels: int) -> list[Step]:
    """fc6 and fc7 as convolutions, each followed by dropout."""
    return [
        Convolve("fc6", fc6, channels, spec.fc_width),
        Drop("drop6", spec.fc_width, spec.dropout),
        Convolve("fc7", Layer(1), spec.fc_width, spec.fc_width),
        Drop("drop7", spec.fc_width, spec.dropout),
    ]


def _torchvision_names(steps: list[Step]) -> dict[str, str]:
    """Our names by torchvision's.

    ``features`` of its vgg16 is one sequence in which a convolution and its ReLU take two places
    and a pooling one; its classifier is Linear, ReLU, Dropout, Linear, ...
    """
    names, place = {}, 0
    for step in steps:
        if isinstance(step, Convolve):
            names[f"features.{place}"] = step.name
        place += 2 if isinstance(step, Convolve) else 1
    return names
