"""The fully convolutional network: a feature extractor and a skip head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from fcn_model import ring
from fcn_model.backbones import backbone
from fcn_model.backbones.trunk import Trunk
from fcn_model.extents import Extents
from fcn_model.geometry import stride
from fcn_model.heads import SkipHead
from fcn_model.kept import Kept
from fcn_model.layers import Conv, Variant
from fcn_model.spec import NetworkSpec


class FCN(nn.Module):
    """FCN-32s, FCN-16s or FCN-8s (Long, Shelhamer, Darrell) on any backbone, as ``spec`` says.

    Parameters are flat and named as in the reference (``conv1_1.weight`` ... ``score_pool3.bias``).
    A new network has He-initialized trunk and fc layers, drawn from torch's random state, and zero
    score layers; `build` fixes the seed. Under ``torch.device("meta")`` nothing is allocated.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.trunks = {stream.name: backbone(spec, stream.channels) for stream in spec.streams}
        self.heads = tuple(SkipHead(spec, self.backbone, task) for task in spec.tasks)
        for stream, trunk in self.trunks.items():
            for name, layer in trunk.make_layers().items():
                self.add_module(name + stream, layer)
        for head in self.heads:
            for name, layer in head.make_layers().items():
                self.add_module(name, layer)

    @property
    def backbone(self) -> Trunk:
        """The (first) stream's trunk; the geometry of all is the same."""
        return self.trunks[self.spec.streams[0].name]

    @property
    def stride(self) -> int:
        """Image pixels from one output of the trunk to the next: 32."""
        return stride(self.backbone.path(self.backbone.top))

    def forward(
        self,
        images_NCHW: Tensor,
        sizes: Sequence[tuple[int, int]] | None = None,
        kept: Kept | None = None,
    ) -> Tensor:
        """Class scores (N, K, H, W) of normalized images (N, C, H, W), any H and W from 1.

        C is ``spec.in_channels``, the streams one after another, and K the classes of all tasks one
        after another (see ``spec.split``).

        With ``sizes``, the (height, width) of each image, a batch may hold images of unequal sizes,
        each zero-filled on the right and at the bottom after normalization. Then
        ``scores[i, :, :h, :w]`` are exactly those of image i alone; what lies outside means
        nothing. Under autocast the scores still are float32. Raises ValueError for shapes that do
        not fit.

        What the zeros of the first padding become is not computed for each image (see `ring`).
        Where weights do not change and no gradients are wanted, ``kept`` holds it, and what else
        follows from them alone, from batch to batch.
        """
        features, extents = self._features(images_NCHW, sizes, kept)
        layers = dict(self.named_children())
        height, width = images_NCHW.shape[2:]
        scores = [head.run(layers, features, extents, (height, width)) for head in self.heads]
        return scores[0] if len(scores) == 1 else torch.cat(scores, 1)

    def coarse(
        self,
        images_NCHW: Tensor,
        sizes: Sequence[tuple[int, int]] | None = None,
        kept: Kept | None = None,
        *,
        task: int = 0,
    ) -> Tensor:
        """One task's scores (N, K, h, w) before the last enlargement; arguments as `forward`'s."""
        features, extents = self._features(images_NCHW, sizes, kept)
        return self.heads[task].coarse(dict(self.named_children()), features, extents)

    def _features(
        self,
        images_NCHW: Tensor,
        sizes: Sequence[tuple[int, int]] | None,
        kept: Kept | None,
    ) -> tuple[list[dict[str, Tensor]], Extents]:
        extents = Extents.of_batch(images_NCHW, sizes, self.spec.in_channels)
        features = [
            ring.features(trunk, own, part_NCHW, extents, None if kept is None else kept.zeros)
            for trunk, own, part_NCHW in self.streams(images_NCHW, kept)
        ]
        return features, extents

    def streams(
        self, images_NCHW: Tensor, kept: Kept | None = None
    ) -> Iterator[tuple[Trunk, Mapping[str, nn.Module], Tensor]]:
        """Each stream's trunk, its layers by their names without the stream's, and its input.

        ``kept`` is as `forward`'s.
        """
        layers = dict(self.named_children())
        if kept is not None:
            for name, layer in layers.items():
                if isinstance(layer, Conv):
                    layers[name] = Variant(layer, kept=kept.weights)
        channels = [stream.channels for stream in self.spec.streams]
        parts = images_NCHW.split(channels, dim=1)  # type: ignore[no-untyped-call]
        for (stream, trunk), part_NCHW in zip(self.trunks.items(), parts, strict=True):
            yield trunk, _of_stream(layers, stream), part_NCHW


def _of_stream(layers: Mapping[str, nn.Module], stream: str) -> Mapping[str, nn.Module]:
    """The layers by the names that they have in the trunk of ``stream``."""
    if not stream:
        return layers
    return {
        name.removesuffix(stream): layer for name, layer in layers.items() if name.endswith(stream)
    }


def build(spec: NetworkSpec, *, seed: int = 0) -> FCN:
    """A fresh network on the CPU: the same ``spec`` and ``seed`` give the same parameters.

    torch's global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FCN(spec)
