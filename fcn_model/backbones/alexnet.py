"""AlexNet as a feature extractor, in two forms that share their geometry.

CaffeNet is the one of the paper's FCN-AlexNet: two groups in conv2, conv4 and conv5, and local
response normalization after pooling (the original AlexNet has it before). Source:
``voc-fcn-alexnet/net.py`` of shelhamer/fcn.berkeleyvision.org. torchvision's has a single column of
other widths, no groups and no normalization ("One weird trick", Krizhevsky 2014).
"""

from __future__ import annotations

from dataclasses import dataclass

from fcn_model.backbones.steps import Convolve, MaxPool, ResponseNorm, Step, scaled
from fcn_model.backbones.trunk import Trunk
from fcn_model.backbones.vgg import fully_connected
from fcn_model.geometry import Layer
from fcn_model.spec import NetworkSpec

POOL = Layer(kernel=3, stride=2, ceil=True)


@dataclass(frozen=True, kw_only=True)
class Form:
    """What the two forms differ in: channels of conv1..5, groups, normalization, names."""

    channels: tuple[int, int, int, int, int]
    groups: tuple[int, int, int, int, int]
    normalized: bool
    native_pad: int
    imagenet_names: dict[str, str]
    classifier: str


_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7")
CAFFENET = Form(
    channels=(96, 256, 384, 384, 256),
    groups=(1, 2, 1, 2, 2),
    normalized=True,
    native_pad=0,
    imagenet_names={name: name for name in _LAYERS},
    classifier="fc8",
)
TORCHVISION = Form(
    channels=(64, 192, 384, 256, 256),
    groups=(1, 1, 1, 1, 1),
    normalized=False,
    native_pad=2,
    imagenet_names=dict(
        zip(
            [*(f"features.{place}" for place in (0, 3, 6, 8, 10)), "classifier.1", "classifier.4"],
            _LAYERS,
            strict=True,
        )
    ),
    classifier="classifier.6",
)


def caffenet(spec: NetworkSpec, channels: int, first_pad: int | None) -> Trunk:
    """The reference's; ``first_pad`` None is the classifier's own."""
    return _trunk(CAFFENET, spec, channels, first_pad)


def alexnet(spec: NetworkSpec, channels: int, first_pad: int | None) -> Trunk:
    """torchvision's; ``first_pad`` None is the classifier's own."""
    return _trunk(TORCHVISION, spec, channels, first_pad)


def _trunk(form: Form, spec: NetworkSpec, channels: int, first_pad: int | None) -> Trunk:
    first = Layer(11, stride=4, pad=form.native_pad if first_pad is None else first_pad)
    geometries = (first, Layer(5, pad=2), *[Layer(3, pad=1)] * 3)
    steps: list[Step] = []
    convolutions = zip(geometries, form.channels, form.groups, strict=True)
    for index, (geometry, base, groups) in enumerate(convolutions, start=1):
        wide = scaled(base, spec.width, multiple=max(form.groups))
        steps.append(Convolve(f"conv{index}", geometry, channels, wide, groups))
        channels = wide
        if index in {1, 2, 5}:
            steps.append(MaxPool(f"pool{index}", POOL, channels))
        if index in {1, 2} and form.normalized:
            steps.append(ResponseNorm(f"norm{index}", channels))
    return Trunk(
        steps=(*steps, *fully_connected(spec, Layer(6), channels)),
        top="drop7",
        skips=("pool2", "pool1"),
        imagenet_names=form.imagenet_names,
        fully_connected=("fc6", "fc7"),
        classifier=form.classifier,
    )
