"""The class of every pixel from the scores before the last enlargement.

Scores of image size are never written (see `enlarging`, and `triton_kernels` for a GPU). That all
scores are finite is seen in the coarse ones: those of pixels are weighted means of them. What
`classified` does stays on the device, so a GPU can do it as part of a pass (see `replays`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from fcn_model import enlarging
from fcn_model.heads import SkipHead
from fcn_model.layers import BilinearUpsample, crop
from fcn_model.outcomes import NonFiniteError, Outcome
from fcn_model.precision import has_kernels


class Classified(NamedTuple):
    """A batch on its device after the last layer."""

    scores_NKhw: Tensor
    """What the last enlargement interpolates, or what a learned one has enlarged."""
    ids_NHW: Tensor
    """uint8, the class of every pixel of the canvas."""
    sound: Tensor
    """bool, whether all scores are finite."""


def classified(
    head: SkipHead,
    layers: Mapping[str, nn.Module],
    coarse_NKhw: Tensor,
    canvas: tuple[int, int],
    *,
    skipped: tuple[int, int] = (0, 0),
) -> Classified:
    """The classes of a ``canvas`` (height, width) that begins ``skipped`` into image or window."""
    upsample = layers[head.final_upsample]
    if not isinstance(upsample, BilinearUpsample):
        coarse_NKhw = upsample(coarse_NKhw)
    ids_NHW = best_classes(upsample, coarse_NKhw, _begin(head, skipped), canvas)
    return Classified(coarse_NKhw, ids_NHW, coarse_NKhw.isfinite().all())


def masks(
    head: SkipHead,
    layers: Mapping[str, nn.Module],
    found: Classified,
    sizes: Sequence[tuple[int, int]],
    *,
    skipped: tuple[int, int] = (0, 0),
    origin: tuple[int, int] = (0, 0),
) -> list[Outcome]:
    """The (h, w) uint8 mask of each image of a batch, or that its scores are not finite.

    ``found`` is of a canvas that begins ``skipped`` (rows, columns) into its image or window and
    holds masks of ``sizes``; their first pixel is pixel ``origin`` of the whole image, by which an
    error names a place.
    """
    interpolated = isinstance(layers[head.final_upsample], BilinearUpsample)
    factor = head.final_geometry.stride if interpolated else 1
    begin = _begin(head, skipped)
    sound, ids_NHW = bool(found.sound), found.ids_NHW.cpu().numpy()
    outcomes: list[Outcome] = []
    for scores_Khw, ids_HW, size in zip(found.scores_NKhw, ids_NHW, sizes, strict=True):
        pixel = None if sound else _unsound(scores_Khw, factor, begin, size)
        outcomes.append(
            np.ascontiguousarray(ids_HW[: size[0], : size[1]])
            if pixel is None
            else NonFiniteError(
                f"the scores of pixel ({origin[0] + pixel[0]}, {origin[1] + pixel[1]}) (row, "
                "column) are infinite or not a number, so the image has no mask; check the "
                "weights: a training run that diverged leaves such"
            )
        )
    return outcomes


def _begin(head: SkipHead, skipped: tuple[int, int]) -> tuple[int, int]:
    """Where the canvas begins in the enlarged scores."""
    return head.final_offset + skipped[0], head.final_offset + skipped[1]


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
