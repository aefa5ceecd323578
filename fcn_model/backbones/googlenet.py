"""GoogLeNet (Inception v1) as a feature extractor, in two forms.

BVLC's has local response normalization, no batch normalization, and pools that round up. Source:
``models/bvlc_googlenet/deploy.prototxt`` of BVLC/caffe; its layer names are ours. torchvision's was
trained with batch normalization, which `published` folds into its convolutions, has a 3x3
convolution in the place of 5x5, and halves before inception_5a with a 2x2 window. The paper's
FCN-GoogLeNet drops the classifier, the auxiliary ones and the final average pool (section 4.1); it
was never released, so padding conv1 by 100 is here what the released nets do.
"""

from __future__ import annotations

from dataclasses import dataclass

from fcn_model.backbones.steps import (
    AveragePool,
    Convolve,
    Drop,
    Inception,
    MaxPool,
    ResponseNorm,
    Step,
    scaled,
)
from fcn_model.backbones.trunk import Trunk
from fcn_model.geometry import Layer
from fcn_model.spec import NetworkSpec

POOL = Layer(kernel=3, stride=2, ceil=True)
NATIVE_PAD = 3
BRANCH_POOL = Layer(kernel=3, pad=1, ceil=True)

MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Channels of 1x1, 3x3_reduce, 3x3, 5x5_reduce, 5x5 and pool_proj (Szegedy et al., table 1)."""

_BRANCHES = {
    "1x1": "branch1",
    "3x3_reduce": "branch2.0",
    "3x3": "branch2.1",
    "5x5_reduce": "branch3.0",
    "5x5": "branch3.1",
    "pool_proj": "branch4.1",
}
"""torchvision's name of each convolution of a module."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """What the two forms differ in."""

    normalized: bool
    wide: Layer  # the convolution called 5x5
    pool4: Layer
    imagenet_names: dict[str, str]
    classifier: str


_STEM = {"conv1": "conv1/7x7_s2", "conv2": "conv2/3x3_reduce", "conv3": "conv2/3x3"}
_TORCHVISION_NAMES = _STEM | {
    f"inception{module}.{theirs}": f"inception_{module}/{ours}"
    for module in MODULES
    for ours, theirs in _BRANCHES.items()
}
BVLC = Form(
    normalized=True,
    wide=Layer(5, pad=2),
    pool4=POOL,
    imagenet_names={name: name for name in _TORCHVISION_NAMES.values()},
    classifier="loss3/classifier",
)
TORCHVISION = Form(
    normalized=False,
    wide=Layer(3, pad=1),
    pool4=Layer(kernel=2, stride=2, ceil=True),
    imagenet_names=_TORCHVISION_NAMES,
    classifier="fc",
)


def googlenet(spec: NetworkSpec, channels: int, first_pad: int | None) -> Trunk:
    """BVLC's; ``first_pad`` None is the classifier's own padding and its average pool."""
    return _trunk(BVLC, spec, channels, first_pad)


def googlenet_bn(spec: NetworkSpec, channels: int, first_pad: int | None) -> Trunk:
    """torchvision's; ``first_pad`` None is the classifier's own padding and its average pool."""
    return _trunk(TORCHVISION, spec, channels, first_pad)


def _trunk(form: Form, spec: NetworkSpec, channels: int, first_pad: int | None) -> Trunk:
    conv1, conv2 = scaled(64, spec.width), scaled(192, spec.width)
    first = Layer(7, stride=2, pad=NATIVE_PAD if first_pad is None else first_pad)
    steps: list[Step] = [
        Convolve("conv1/7x7_s2", first, channels, conv1),
        MaxPool("pool1", POOL, conv1),
        ResponseNorm("norm1", conv1),
        Convolve("conv2/3x3_reduce", Layer(1), conv1, conv1),
        Convolve("conv2/3x3", Layer(3, pad=1), conv1, conv2),
        ResponseNorm("norm2", conv2),
        MaxPool("pool2", POOL, conv2),
    ]
    channels = conv2
    for module in MODULES:
        if module in {"4a", "5a"}:
            pool = POOL if module == "4a" else form.pool4
            steps.append(MaxPool("pool3" if module == "4a" else "pool4", pool, channels))
        steps.append(_inception(module, form, spec.width, channels))
        channels = steps[-1].channels
    if first_pad is None:
        steps.append(AveragePool("pool5", Layer(7), channels))
    steps.append(Drop("drop5", channels, spec.dropout))
    if not form.normalized:
        steps = [step for step in steps if not isinstance(step, ResponseNorm)]
    return Trunk(
        steps=tuple(steps),
        top="drop5",
        skips=("pool3", "pool2"),
        imagenet_names=form.imagenet_names,
        fully_connected=(),
        classifier=form.classifier,
    )


def _inception(module: str, form: Form, width: float, channels: int) -> Inception:
    one, reduce3, three, reduce5, five, proj = (scaled(c, width) for c in MODULES[module])
    name = f"inception_{module}"
    point = Layer(1)
    return Inception(
        f"{name}/output",
        (
            (Convolve(f"{name}/1x1", point, channels, one),),
            (
                Convolve(f"{name}/3x3_reduce", point, channels, reduce3),
                Convolve(f"{name}/3x3", Layer(3, pad=1), reduce3, three),
            ),
            (
                Convolve(f"{name}/5x5_reduce", point, channels, reduce5),
                Convolve(f"{name}/5x5", form.wide, reduce5, five),
            ),
            (
                MaxPool(f"{name}/pool", BRANCH_POOL, channels),
                Convolve(f"{name}/pool_proj", point, channels, proj),
            ),
        ),
    )
