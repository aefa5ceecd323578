"""The best class of every pixel of bilinearly enlarged scores, without enlarging most of them.

A pixel's scores are means, of weights that are nowhere negative, of four coarse ones around it.
Where one class is the best of all four, it is the best of every mean of them: only between coarse
positions of unlike classes are scores interpolated at all. `triton_kernels` has the same for a GPU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

AT_ONCE = 1 << 17
"""Interpolated scores that are held at a time: what a processor's cache holds."""


def enlarged_argmax(
    scores_NKhw: Tensor, weights: Tensor, offset: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """(N, H, W) uint8: the best class of every pixel of scores enlarged by a bilinear kernel.

    ``weights`` are those of `layers.BilinearUpsample`; ``offset`` is where the window of ``size``
    begins in the enlarged map. Of equal scores the first class wins.
    """
    factor = len(weights) // 2
    begin = tuple(start // factor for start in offset)
    end = tuple((start + n - 1) // factor + 1 for start, n in zip(offset, size, strict=True))
    # A block of factor x factor pixels lies between a position and the one before, which may be
    # outside of the map: there nothing is added, as if it were zero.
    rows, columns = scores_NKhw.shape[2:]
    outside = (1, max(0, end[1] - columns), 1, max(0, end[0] - rows))
    padded = F.pad(scores_NKhw, outside)[:, :, begin[0] : end[0] + 1, begin[1] : end[1] + 1]
    scores_NhwK = padded.permute(0, 2, 3, 1).contiguous()
    best_Nhw = scores_NhwK.argmax(3)
    corners = [
        (slice(down, down - 1 or None), slice(right, right - 1 or None))
        for down in (0, 1)
        for right in (0, 1)
    ]
    first, *others = (best_Nhw[(slice(None), *corner)] for corner in corners)
    alike = torch.stack([first == other for other in others]).all(0)
    count, high, wide = first.shape
    blocks = first.to(torch.uint8)[:, :, None, :, None].expand(-1, -1, factor, -1, factor)
    blocks = blocks.contiguous()
    unlike = (~alike).nonzero(as_tuple=True)
    step = max(1, AT_ONCE // (factor * factor * scores_NhwK.shape[3]))
    for places in zip(*(torch.split(part, step) for part in unlike), strict=True):
        image, row, column = places
        quads = [
            scores_NhwK[image, row + down, column + right] for down in (0, 1) for right in (0, 1)
        ]
        blocks[image, row, :, column] = _between(quads, weights)
    masks = blocks.view(count, high * factor, wide * factor)
    top, left = (start % factor for start in offset)
    return masks[:, top : top + size[0], left : left + size[1]]


def _between(corners: list[Tensor], weights: Tensor) -> Tensor:
    """(n, factor, factor): the best class between four (n, K) scores, in reading order."""
    factor = len(weights) // 2
    after, before = weights[:factor, None], weights[factor:, None]  # (factor, 1)
    above, below = (
        left[:, None] * before + right[:, None] * after
        for left, right in (corners[:2], corners[2:])
    )  # (n, factor, K)
    scores = above[:, None] * before[:, :, None] + below[:, None] * after[:, :, None]
    return scores.argmax(3).to(torch.uint8)
