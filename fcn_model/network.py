"""The fully convolutional network: a feature extractor and a skip head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fcn_model.backbones import backbone
from fcn_model.extents import Extents
from fcn_model.geometry import stride
from fcn_model.heads import SkipHead
from fcn_model.spec import NetworkSpec


class FCN(nn.Module):
    """FCN-32s, FCN-16s or FCN-8s (Long, Shelhamer, Darrell), as ``spec`` says.

    Parameters are flat and named as in the paper (``conv1_1.weight`` ... ``score_pool3.bias``).
    A new network has He-initialized trunk and fc layers, drawn from torch's random state, and zero
    score layers; `build` fixes the seed. Under ``torch.device("meta")`` nothing is allocated.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = backbone(spec)
        self.head = SkipHead(spec, self.backbone)
        for name, layer in (self.backbone.make_layers() | self.head.make_layers()).items():
            self.add_module(name, layer)

    @property
    def stride(self) -> int:
        """Image pixels from one fc7 output to the next: 32."""
        return stride(self.backbone.path("fc7"))

    def forward(
        self, images_N3HW: Tensor, sizes: Sequence[tuple[int, int]] | None = None
    ) -> Tensor:
        """Class scores (N, K, H, W) of normalized images (N, 3, H, W), any H and W from 1.

        With ``sizes``, the (height, width) of each image, a batch may hold images of unequal sizes,
        each zero-filled on the right and at the bottom after normalization. Then
        ``scores[i, :, :h, :w]`` are exactly those of image i alone; what lies outside means
        nothing. Under autocast the scores still are float32. Raises ValueError for shapes that do
        not fit.
        """
        extents = Extents.of_batch(images_N3HW, sizes)
        layers = dict(self.named_children())
        features = self.backbone.run(layers, images_N3HW, extents)
        height, width = images_N3HW.shape[2:]
        return self.head.run(layers, features, extents, (height, width))


def build(spec: NetworkSpec, *, seed: int = 0) -> FCN:
    """A fresh network on the CPU: the same ``spec`` and ``seed`` give the same parameters.

    torch's global random state is left as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FCN(spec)
