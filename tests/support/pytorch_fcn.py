"""What pytorch-fcn's nets compute, written anew from its numbers and layer names, at any width.

Source: ``torchfcn/models/fcn{32,16,8}s.py`` of wkentaro/pytorch-fcn: padding 100, pooling that
rounds up, dense transposed convolutions without bias, slices from 19; 5 and 27; 5, 9 and 31.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.support.randomized import randomized

BLOCKS = ((1, 1, 2), (2, 2, 2), (3, 4, 3), (4, 8, 3), (5, 8, 3))
"""Number, channels in units of the first block's, and convolutions of each block."""

STAGES = {
    "FCN32s": {"upscore": (64, 32)},
    "FCN16s": {"upscore2": (4, 2), "upscore16": (32, 16)},
    "FCN8s": {"upscore2": (4, 2), "upscore_pool4": (4, 2), "upscore8": (16, 8)},
}
STAGES["FCN8sAtOnce"] = STAGES["FCN8s"]
"""Kernel and stride of each transposed convolution."""


class PytorchFCN(nn.Module):
    """FCN32s, FCN16s, FCN8s or FCN8sAtOnce with random parameters, evaluating."""

    def __init__(self, kind: str, num_classes: int, *, wide: int, fc: int, seed: int = 0) -> None:
        super().__init__()
        self.kind = kind
        channels = 3
        for block, units, count in BLOCKS:
            for index in range(1, count + 1):
                padding = 100 if (block, index) == (1, 1) else 1
                convolution = nn.Conv2d(channels, units * wide, 3, padding=padding)
                self.add_module(f"conv{block}_{index}", convolution)
                channels = units * wide
        self.fc6 = nn.Conv2d(8 * wide, fc, 7)
        self.fc7 = nn.Conv2d(fc, fc, 1)
        self.score_fr = nn.Conv2d(fc, num_classes, 1)
        if kind != "FCN32s":
            self.score_pool4 = nn.Conv2d(8 * wide, num_classes, 1)
        if kind.startswith("FCN8s"):
            self.score_pool3 = nn.Conv2d(4 * wide, num_classes, 1)
        for name, (kernel, stride) in STAGES[kind].items():
            enlarge = nn.ConvTranspose2d(num_classes, num_classes, kernel, stride, bias=False)
            self.add_module(name, enlarge)
        randomized(self, seed)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K, H, W)."""
        pools = {}
        h = x
        for block, _, count in BLOCKS:
            for index in range(1, count + 1):
                h = F.relu(self.get_submodule(f"conv{block}_{index}")(h))
            h = pools[block] = F.max_pool2d(h, 2, 2, ceil_mode=True)
        h = self.score_fr(F.relu(self.fc7(F.relu(self.fc6(h)))))
        at_once = self.kind == "FCN8sAtOnce"
        if self.kind == "FCN32s":
            return _slice(self.get_submodule("upscore")(h), 19, x)
        h = self.get_submodule("upscore2")(h)
        h = h + _slice(self.score_pool4(pools[4] * (0.01 if at_once else 1)), 5, h)
        if self.kind == "FCN16s":
            return _slice(self.get_submodule("upscore16")(h), 27, x)
        h = self.get_submodule("upscore_pool4")(h)
        h = h + _slice(self.score_pool3(pools[3] * (0.0001 if at_once else 1)), 9, h)
        return _slice(self.get_submodule("upscore8")(h), 31, x)


def _slice(h: Tensor, start: int, like: Tensor) -> Tensor:
    return h[:, :, start : start + like.shape[2], start : start + like.shape[3]]
