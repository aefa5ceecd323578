"""The feature extractor for each name in a spec."""

from __future__ import annotations

from fcn_model.backbones.alexnet import alexnet, caffenet
from fcn_model.backbones.googlenet import googlenet, googlenet_bn
from fcn_model.backbones.trunk import Trunk
from fcn_model.backbones.vgg import vgg16
from fcn_model.spec import NetworkSpec

FIRST_PAD = 100
"""Zeros around the image at the first convolution, in every net of the reference."""

_TRUNKS = {
    "vgg16": vgg16,
    "caffenet": caffenet,
    "alexnet": alexnet,
    "googlenet": googlenet,
    "googlenet_bn": googlenet_bn,
}


def backbone(spec: NetworkSpec, channels: int = 3) -> Trunk:
    """The feature extractor that ``spec`` asks for, for images of so many channels."""
    return _TRUNKS[spec.backbone](spec, channels, FIRST_PAD)


def classifier_trunk(spec: NetworkSpec) -> Trunk:
    """The same layers as the ImageNet classifier has them: its own padding, its average pool."""
    return _TRUNKS[spec.backbone](spec, 3, None)
