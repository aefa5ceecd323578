"""The fully convolutional network of Long, Shelhamer and Darrell on tensors and single images.

``from fcn_model import load_segmenter; mask = load_segmenter("checkpoint")(image)``

Names are loaded when they are first used: who needs only a class list does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fcn_model.classes import ClassList
    from fcn_model.metrics import Confusion
    from fcn_model.model_config import ModelConfig
    from fcn_model.network import FCN, build
    from fcn_model.normalize import Normalization
    from fcn_model.outcomes import NonFiniteError, Outcome, OutOfMemoryError
    from fcn_model.segmenter import Segmenter, load_segmenter
    from fcn_model.spec import NetworkSpec

_HOME = {
    "FCN": "network",
    "ClassList": "classes",
    "Confusion": "metrics",
    "ModelConfig": "model_config",
    "NetworkSpec": "spec",
    "NonFiniteError": "outcomes",
    "Normalization": "normalize",
    "OutOfMemoryError": "outcomes",
    "Outcome": "outcomes",
    "Segmenter": "segmenter",
    "build": "network",
    "load_segmenter": "segmenter",
}

__all__ = [
    "FCN",
    "ClassList",
    "Confusion",
    "ModelConfig",
    "NetworkSpec",
    "NonFiniteError",
    "Normalization",
    "OutOfMemoryError",
    "Outcome",
    "Segmenter",
    "build",
    "load_segmenter",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
