"""The skip head: FCN-32s, FCN-16s and FCN-8s are its settings; a network has one for each task.

Scores of the trunk's top are enlarged to the stride of the next finer pooled map, added to the
scores of that map, and so on; the last enlargement goes to image resolution. Every crop is composed
from the geometry of the layers on its two paths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from fcn_model.backbones.trunk import Trunk
from fcn_model.errors import SpecError
from fcn_model.extents import Extents
from fcn_model.geometry import Layer, alignment, crop_offset, output_size, stride, trimmed
from fcn_model.layers import BilinearUpsample, LearnedUpsample, Score, crop
from fcn_model.spec import SKIPS, NetworkSpec, Stream, Task


@dataclass(frozen=True)
class Fusion:
    """One skip: the coarser scores enlarged, and the window of the skip's scores they fall on.

    ``offset`` is where the enlarged scores begin in the skip's; ``trim`` how many of the first
    enlarged ones are dropped because the skip's begin later, 0 in the released nets. Likewise,
    where the skip's map ends first, only what both have is kept.
    """

    feature: str
    skip_path: tuple[Layer, ...]
    scale: float
    upsample: str
    geometry: Layer
    offset: int
    trim: int


class SkipHead:
    """The steps from features to scores at image resolution; holds no tensors (see `Trunk`)."""

    def __init__(self, spec: NetworkSpec, backbone: Trunk, task: Task) -> None:
        self.num_classes = task.num_classes
        self.upsampling = spec.upsampling
        self.suffix = f"_{task.name}" if task.name else ""
        self.streams: tuple[Stream, ...] = spec.streams
        self.top = backbone.top
        self.channels = {name: backbone.channels(name) for name in (self.top, *backbone.skips)}
        self.fusions: tuple[Fusion, ...] = ()
        path = self.score_path = backbone.path(self.top)
        upsample = "upscore2"
        for feature, scale in zip(
            backbone.skips[: SKIPS[spec.head]], spec.skip_scales, strict=False
        ):
            skip_path = backbone.path(feature)
            factor = stride(path) // stride(skip_path)
            geometry = upsampling(path, factor, skip_path)
            offset = alignment(skip_path, (*path, geometry))
            fusion = Fusion(
                feature=feature,
                skip_path=skip_path,
                scale=scale,
                upsample=upsample + self.suffix,
                geometry=geometry,
                offset=max(0, offset),
                trim=max(0, -offset),
            )
            self.fusions += (fusion,)
            path = (*path, geometry, trimmed(fusion.trim))
            upsample = f"upscore_{feature}"
        factor = stride(path)
        self.final_geometry = upsampling(path, factor, ())
        self.final_upsample = (f"upscore{factor}" if self.fusions else "upscore") + self.suffix
        self.final_offset = crop_offset((*path, self.final_geometry), ())

    def make_layers(self) -> dict[str, nn.Module]:
        """Fresh score layers (zero) and bilinear upsamplers by the paper's names."""
        layers: dict[str, nn.Module] = {}
        for fusion in self.fusions:
            layers[fusion.upsample] = self._upsampler(fusion.geometry, final=False)
        for stream in self.streams:
            layers[self._score("fr", stream)] = Score(self.channels[self.top], self.num_classes)
            for fusion in self.fusions:
                score = Score(self.channels[fusion.feature], self.num_classes)
                layers[self._score(fusion.feature, stream)] = score
        layers[self.final_upsample] = self._upsampler(self.final_geometry, final=True)
        return layers

    def sizes(self, image: int) -> list[int]:
        """Positions on one axis of the scores of the top, of each fusion, and enlarged at last.

        The last needs to be ``final_offset`` larger than the image, which holds for every image.
        """
        sizes = [output_size(self.score_path, image)]
        for fusion in self.fusions:
            skip = output_size(fusion.skip_path, image) - fusion.offset
            sizes.append(min(fusion.geometry.output_size(sizes[-1]) - fusion.trim, skip))
        return [*sizes, self.final_geometry.output_size(sizes[-1])]

    def run(
        self,
        layers: Mapping[str, nn.Module],
        features: Sequence[Mapping[str, Tensor]],
        extents: Extents,
        canvas: tuple[int, int],
    ) -> Tensor:
        """Scores (N, K, H, W) of a batch on a canvas (H, W) from the features of each stream.

        ``extents`` are of its images.
        """
        score_NKhw = layers[self.final_upsample](self.coarse(layers, features, extents))
        return crop(score_NKhw, self.final_offset, *canvas)

    def coarse(
        self,
        layers: Mapping[str, nn.Module],
        features: Sequence[Mapping[str, Tensor]],
        extents: Extents,
    ) -> Tensor:
        """What `run` enlarges at last: scores (N, K, h, w), zero outside each image's extent."""
        image_extents = extents
        extents = extents.through(self.score_path)
        score_NKhw = self._averaged(layers, features, self.top, "fr", 1.0)
        extents.clear_(score_NKhw)
        for fusion in self.fusions:
            score_NKhw = layers[fusion.upsample](score_NKhw)
            skip_NKhw = self._averaged(
                layers, features, fusion.feature, fusion.feature, fusion.scale
            )
            height, width = (
                min(score_NKhw.shape[axis] - fusion.trim, skip_NKhw.shape[axis] - fusion.offset)
                for axis in (2, 3)
            )
            score_NKhw = crop(score_NKhw, fusion.trim, height, width)
            score_NKhw += crop(skip_NKhw, fusion.offset, height, width)
            extents = extents.through([fusion.geometry]).overlap(
                fusion.trim, image_extents.through(fusion.skip_path), fusion.offset
            )
            extents.clear_(score_NKhw)
        return score_NKhw

    def _averaged(
        self,
        layers: Mapping[str, nn.Module],
        features: Sequence[Mapping[str, Tensor]],
        feature: str,
        score: str,
        scale: float,
    ) -> Tensor:
        """The scores that all streams give ``feature``, averaged as nyud-fcn32s-color-hha does."""
        scores_NKhw = None
        for stream, maps in zip(self.streams, features, strict=True):
            x = maps[feature] if scale == 1 else maps[feature] * scale
            one_NKhw = layers[self._score(score, stream)](x)
            scores_NKhw = one_NKhw if scores_NKhw is None else scores_NKhw + one_NKhw
        assert scores_NKhw is not None, "a network has at least one stream"
        return scores_NKhw if len(self.streams) == 1 else scores_NKhw / len(self.streams)

    def _score(self, of: str, stream: Stream) -> str:
        return f"score_{of}{self.suffix}{stream.name}"

    def _upsampler(self, geometry: Layer, *, final: bool) -> nn.Module:
        learned = self.upsampling == "learned" or (self.upsampling == "intermediate" and not final)
        kind = LearnedUpsample if learned else BilinearUpsample
        return kind(self.num_classes, geometry)


def upsampling(path: Sequence[Layer], factor: int, onto: Sequence[Layer]) -> Layer:
    """The bilinear enlargement of ``path``'s end by ``factor`` that aligns with ``onto``'s.

    The kernel is twice the factor, so that outputs interpolate between the two nearest inputs; one
    less where only that gives a whole crop offset (AlexNet's 63). Raises SpecError if neither does.
    """
    even, odd = (
        Layer(kernel, stride=factor, transposed=True) for kernel in (2 * factor, 2 * factor - 1)
    )
    try:
        alignment((*path, even), onto)
    except SpecError:
        alignment((*path, odd), onto)
        return odd
    return even
