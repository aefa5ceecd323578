"""The pixel loss, as sums over each image: divided once, by what the recipe says, at the end."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

Reduction = Literal["sum", "mean", "image-mean"]


def summed_cross_entropy(
    scores_NKHW: Tensor, labels_NHW: Tensor, void_id: int, class_weights_K: Tensor | None = None
) -> Tensor:
    """The cross-entropy summed over the valid pixels of each image: (N,) float32.

    Labels are int64 ids. A pixel of ``void_id`` gives neither loss nor gradient; any other id
    outside 0..K-1 must have been refused before (on the CPU, where the image can be named). With
    class weights (float32, on the scores' device) a pixel counts as its class says. Summation is in
    float32 also under autocast. Before the first step, with zero scores, an image's loss is its
    `weight_sums` times ln K.
    """
    loss_NHW = F.cross_entropy(
        scores_NKHW.float(),
        labels_NHW,
        weight=class_weights_K,
        ignore_index=void_id,
        reduction="none",
    )
    return loss_NHW.sum((1, 2))


def weight_sums(labels_NHW: Tensor, void_id: int, class_weights_K: Tensor | None = None) -> Tensor:
    """The class weights of each image's valid pixels, summed: (N,) float64.

    Without class weights a pixel weighs one, so this is how many are valid.
    """
    valid_NHW = labels_NHW != void_id
    if class_weights_K is None:
        return valid_NHW.sum((1, 2)).double()
    return (class_weights_K[labels_NHW * valid_NHW].double() * valid_NHW).sum((1, 2))


def share_of_loss(
    losses_N: Tensor, weights_N: Tensor, reduction: Reduction, *, images: float, weight: float
) -> Tensor:
    """What these images add to the loss of their step, which has ``images`` of summed ``weight``.

    Shares add up to the loss, whatever workers and passes the images of the step are dealt to:

    * ``sum``: every image's summed loss, divided by the images. Caffe's ``normalize: false``, the
      reference's loss. Class weights scale it.
    * ``mean``: divided by the summed weights of all valid pixels of the step, as torch does it, so
      that a factor on all class weights changes nothing. ``normalize: true`` of one whole batch.
    * ``image-mean``: every image's loss divided by its own summed weight, then by the images.
      ``normalize: true`` of one-image passes that ``iter_size`` accumulates, as FCN-AlexNet has it.

    An image, or a step, without a valid pixel has loss zero and counts as an image.
    """
    if reduction == "sum":
        return losses_N.sum() / images
    if reduction == "mean":
        return losses_N.sum() / (weight if weight > 0 else 1.0)
    weights_N = weights_N.where(weights_N > 0, 1.0).to(losses_N)
    return (losses_N / weights_N).sum() / images
