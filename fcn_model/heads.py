"""The skip head: FCN-32s, FCN-16s and FCN-8s are its settings.

Scores of fc7 are enlarged to the stride of the next finer pooled map, added to the scores of that
map, and so on; the last enlargement goes to image resolution. Every crop is composed from the
geometry of the layers on its two paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from fcn_model.backbones import Backbone
from fcn_model.extents import Extents
from fcn_model.geometry import Layer, crop_offset, stride
from fcn_model.layers import BilinearUpsample, Score, crop
from fcn_model.spec import Head, NetworkSpec

SKIPS: dict[Head, tuple[str, ...]] = {
    "fcn32s": (),
    "fcn16s": ("pool4",),
    "fcn8s": ("pool4", "pool3"),
}
"""The pooled maps that each head adds to the scores of fc7, coarse to fine."""


@dataclass(frozen=True)
class Fusion:
    """One skip: the coarser scores enlarged, and the window of the skip's scores they fall on."""

    feature: str
    scale: float
    upsample: str
    factor: int
    offset: int

    @property
    def score(self) -> str:
        """The name of the skip's score layer."""
        return f"score_{self.feature}"


class SkipHead:
    """The steps from features to scores at image resolution; holds no tensors (see `Backbone`)."""

    def __init__(self, spec: NetworkSpec, backbone: Backbone) -> None:
        self.num_classes = spec.num_classes
        self.fc7_channels = backbone.channels("fc7")
        self.fusions: tuple[Fusion, ...] = ()
        self.channels = {name: backbone.channels(name) for name in SKIPS[spec.head]}
        path = backbone.path("fc7")
        self.score_path = path
        upsample = "upscore2"
        for feature, scale in zip(SKIPS[spec.head], spec.skip_scales, strict=False):
            skip_path = backbone.path(feature)
            factor = stride(path) // stride(skip_path)
            path = (*path, upsampling(factor))
            offset = crop_offset(skip_path, path)
            self.fusions += (Fusion(feature, scale, upsample, factor, offset),)
            upsample = f"upscore_{feature}"
        self.final_factor = stride(path)
        path = (*path, upsampling(self.final_factor))
        self.final_upsample = f"upscore{self.final_factor}" if self.fusions else "upscore"
        self.final_offset = crop_offset(path, ())

    def make_layers(self) -> dict[str, nn.Module]:
        """Fresh score layers (zero) and fixed upsamplers by the paper's names."""
        layers: dict[str, nn.Module] = {"score_fr": Score(self.fc7_channels, self.num_classes)}
        for fusion in self.fusions:
            layers[fusion.upsample] = BilinearUpsample(self.num_classes, fusion.factor)
            layers[fusion.score] = Score(self.channels[fusion.feature], self.num_classes)
        layers[self.final_upsample] = BilinearUpsample(self.num_classes, self.final_factor)
        return layers

    def run(
        self,
        layers: Mapping[str, nn.Module],
        features: Mapping[str, Tensor],
        extents: Extents,
        canvas: tuple[int, int],
    ) -> Tensor:
        """Scores (N, K, H, W) of a batch on a canvas (H, W); ``extents`` are of its images."""
        extents = extents.through(self.score_path)
        score_NKhw = layers["score_fr"](features["fc7"])
        extents.clear_(score_NKhw)
        for fusion in self.fusions:
            score_NKhw = layers[fusion.upsample](score_NKhw)
            feature = features[fusion.feature]
            if fusion.scale != 1:
                feature = feature * fusion.scale
            skip_NKhw = layers[fusion.score](feature)
            score_NKhw += crop(skip_NKhw, fusion.offset, *score_NKhw.shape[2:])
            extents = extents.through([upsampling(fusion.factor)])
            extents.clear_(score_NKhw)
        score_NKhw = layers[self.final_upsample](score_NKhw)
        return crop(score_NKhw, self.final_offset, *canvas)


def upsampling(factor: int) -> Layer:
    """The geometry of a bilinear enlargement by ``factor``, as `BilinearUpsample` has it."""
    return Layer(kernel=2 * factor, stride=factor, transposed=True)
