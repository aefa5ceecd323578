"""A feature extractor: a chain of steps, which of its maps the head uses, and its other names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from fcn_model.backbones.steps import Step, make_layers
from fcn_model.extents import Extents
from fcn_model.geometry import Layer


@dataclass(frozen=True)
class Trunk:
    """Describes layers and runs them; it holds no tensors, so parameter names can stay flat.

    ``top`` is the feature that score_fr sees. ``skips`` are the pooled maps of half its stride and
    of a quarter, coarse to fine. ``imagenet_names`` has our layer names by those of the published
    classifier's state dict; ``fully_connected`` are those of ours that were dense layers there, and
    ``classifier`` is the published name of the last one, which a segmentation network drops.
    """

    steps: tuple[Step, ...]
    top: str
    skips: tuple[str, str]
    imagenet_names: Mapping[str, str]
    fully_connected: tuple[str, ...]
    classifier: str

    def path(self, feature: str) -> tuple[Layer, ...]:
        """The layers from the image to ``feature``, which may be any step."""
        end = [step.name for step in self.steps].index(feature) + 1
        return tuple(step.geometry for step in self.steps[:end])

    def channels(self, feature: str) -> int:
        """How many channels ``feature`` has."""
        return next(step.channels for step in self.steps if step.name == feature)

    def make_layers(self) -> dict[str, nn.Module]:
        """Fresh layers by the names of the reference."""
        return make_layers(self.steps)

    @property
    def wanted(self) -> frozenset[str]:
        """The steps whose maps the head uses."""
        return frozenset({self.top, *self.skips})

    def run(
        self,
        layers: Mapping[str, nn.Module],
        x_NChw: Tensor,
        extents: Extents,
        *,
        done: int = 0,
    ) -> dict[str, Tensor]:
        """The top and the skips of a batch by name, zero outside each image's extent.

        ``x_NChw`` are the images, or what the first ``done`` steps made of them; then the result
        has what the others make. ``extents`` are those of ``x_NChw``.
        """
        features = {}
        for step in self.steps[done:]:
            extents = extents.through([step.geometry])
            x_NChw = step.run(layers, x_NChw, extents)
            if step.name in self.wanted:
                features[step.name] = x_NChw
        return features
