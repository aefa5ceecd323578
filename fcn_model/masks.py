"""The class of every pixel from the scores before the last enlargement.

Scores of image size are never written (see `enlarging`, and `triton_kernels` for a GPU). That all
scores are finite is seen in the coarse ones: those of pixels are weighted means of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from fcn_model import enlarging
from fcn_model.heads import SkipHead
from fcn_model.layers import BilinearUpsample, crop
from fcn_model.outcomes import NonFiniteError, Outcome
from fcn_model.precision import has_kernels


def masks(
    head: SkipHead,
    layers: Mapping[str, nn.Module],
    coarse_NKhw: Tensor,
    sizes: Sequence[tuple[int, int]],
    *,
    skipped: tuple[int, int] = (0, 0),
    origin: tuple[int, int] = (0, 0),
) -> list[Outcome]:
    """The (h, w) uint8 mask of each image of a batch, or that its scores are not finite.

    A mask begins ``skipped`` (rows, columns) into its image or window, and is of one of ``sizes``;
    its first pixel is pixel ``origin`` of its whole image, by which an error names a place.
    """
    upsample = layers[head.final_upsample]
    if isinstance(upsample, BilinearUpsample):
        factor = head.final_geometry.stride
    else:
        coarse_NKhw, factor = upsample(coarse_NKhw), 1
    begin = head.final_offset + skipped[0], head.final_offset + skipped[1]
    canvas = max(size[0] for size in sizes), max(size[1] for size in sizes)
    sound = bool(coarse_NKhw.isfinite().all())
    ids_NHW = best_classes(upsample, coarse_NKhw, begin, canvas).cpu().numpy()
    found: list[Outcome] = []
    for coarse_Khw, ids_HW, size in zip(coarse_NKhw, ids_NHW, sizes, strict=True):
        pixel = None if sound else _unsound(coarse_Khw, factor, begin, size)
        found.append(
            np.ascontiguousarray(ids_HW[: size[0], : size[1]])
            if pixel is None
            else NonFiniteError(
                f"the scores of pixel ({origin[0] + pixel[0]}, {origin[1] + pixel[1]}) (row, "
                "column) are infinite or not a number, so the image has no mask; check the "
                "weights: a training run that diverged leaves such"
            )
        )
    return found


def best_classes(
    upsample: nn.Module, coarse_NKhw: Tensor, begin: tuple[int, int], canvas: tuple[int, int]
) -> Tensor:
    """(N, H, W) uint8 classes of a ``canvas`` that starts at ``begin`` of the enlarged scores.

    ``upsample`` is the head's last layer; scores that it does not interpolate are enlarged already.
    """
    if not isinstance(upsample, BilinearUpsample):
        return crop(coarse_NKhw[:, :, begin[0] :, begin[1] :], 0, *canvas).argmax(1).byte()
    if has_kernels(coarse_NKhw.device):
        from fcn_model.triton_kernels import enlarged_argmax  # noqa: PLC0415

        return enlarged_argmax(coarse_NKhw, upsample.weights, begin, canvas)
    return enlarging.enlarged_argmax(coarse_NKhw, upsample.weights, begin, canvas)


def _unsound(
    coarse_Khw: Tensor, factor: int, begin: tuple[int, int], size: tuple[int, int]
) -> tuple[int, int] | None:
    """The first pixel (row, column) of a window that has a score that is not finite, if any has."""
    # A pixel is made of two scores on each axis, that under it and the one before.
    reach = 1 if factor > 1 else 0
    firsts = [max(0, start // factor - reach) for start in begin]
    ends = [(start + length - 1) // factor + 1 for start, length in zip(begin, size, strict=True)]
    sound_hw = coarse_Khw[:, firsts[0] : ends[0], firsts[1] : ends[1]].isfinite().all(0)
    pixels = [
        tuple(
            max(0, (first + place) * factor - start)
            for first, place, start in zip(firsts, places, begin, strict=True)
        )
        for places in (~sound_hw).nonzero().tolist()
    ]
    return min(pixels, default=None)
