"""The pixel loss, as a sum: divide once, by what the recipe says, after adding over workers."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def summed_cross_entropy(scores_NKHW: Tensor, labels_NHW: Tensor, void_id: int) -> Tensor:
    """The cross-entropy summed over every valid pixel of the batch: a float32 scalar.

    Labels are int64 ids. A pixel of ``void_id`` gives neither loss nor gradient; any other id
    outside 0..K-1 must have been refused before (on the CPU, where the image can be named).
    Divided by the number of images this is Caffe's ``normalize: false``, the reference's loss;
    divided by `valid_pixels` it is ``normalize: true``. Summation is in float32 also under
    autocast. Before the first step, with zero scores, it is valid pixels times ln K.
    """
    return F.cross_entropy(scores_NKHW.float(), labels_NHW, ignore_index=void_id, reduction="sum")


def valid_pixels(labels_NHW: Tensor, void_id: int) -> Tensor:
    """How many pixels are not void: an int64 scalar on the labels' device."""
    return (labels_NHW != void_id).sum()
