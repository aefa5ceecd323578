"""Normalizations by the names that command lines have for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from fcn_model import Normalization, normalize
from fcn_model.spec import BackboneName

NormalizationName = Literal[
    "torchvision", "torchvision-googlenet", "caffe", "nyud", "nyud-hha", "siftflow", "pascalcontext"
]

NORMALIZATIONS: Mapping[NormalizationName, Normalization] = {
    "torchvision": normalize.TORCHVISION,
    "torchvision-googlenet": normalize.TORCHVISION_GOOGLENET,
    "caffe": normalize.CAFFE,
    "nyud": normalize.NYUD_COLOR,
    "nyud-hha": normalize.NYUD_HHA,
    "siftflow": normalize.SIFT_FLOW,
    "pascalcontext": normalize.PASCAL_CONTEXT,
}

PLANES: Mapping[str, Normalization] = {
    "depth": normalize.NYUD_DEPTH,
    "hha": NORMALIZATIONS["nyud-hha"],
}
"""Those of measured planes, by the plane."""


def torchvisions(backbone: BackboneName) -> NormalizationName:
    """The one that torchvision's ImageNet weights of ``backbone`` expect."""
    return "torchvision-googlenet" if backbone == "googlenet_bn" else "torchvision"
