"""The contract of a feature extractor, and the one for each name in a spec."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor, nn

from fcn_model.backbones.vgg import Vgg16
from fcn_model.extents import Extents
from fcn_model.geometry import Layer
from fcn_model.spec import NetworkSpec


class Backbone(Protocol):
    """Describes layers and runs them; it holds no tensors, so parameter names can stay flat."""

    def path(self, feature: str) -> tuple[Layer, ...]:
        """The layers from the image to ``feature``."""
        ...

    def channels(self, feature: str) -> int:
        """How many channels ``feature`` has."""
        ...

    def make_layers(self) -> dict[str, nn.Module]:
        """Fresh layers by the paper's names."""
        ...

    def run(
        self, layers: Mapping[str, nn.Module], images_N3HW: Tensor, extents: Extents
    ) -> dict[str, Tensor]:
        """The features of a batch by name, zero outside each image's extent."""
        ...

    def imagenet_names(self) -> dict[str, str]:
        """Our layer names by the names that torchvision's classifier gives them."""
        ...


def backbone(spec: NetworkSpec) -> Backbone:
    """The feature extractor that ``spec`` asks for."""
    return {"vgg16": Vgg16}[spec.backbone](spec)
