"""The fully convolutional network of Long, Shelhamer and Darrell on tensors and single images.

``from fcn_model import load_segmenter; mask = load_segmenter("checkpoint")(image)``
"""

from fcn_model.checkpoint import ModelConfig
from fcn_model.classes import ClassList
from fcn_model.metrics import Confusion
from fcn_model.network import FCN, build
from fcn_model.normalize import Normalization
from fcn_model.segmenter import Segmenter, load_segmenter
from fcn_model.spec import NetworkSpec

__all__ = [
    "FCN",
    "ClassList",
    "Confusion",
    "ModelConfig",
    "NetworkSpec",
    "Normalization",
    "Segmenter",
    "build",
    "load_segmenter",
]
