from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch

from fcn_model.losses import Reduction, share_of_loss, summed_cross_entropy, weight_sums


def scores_and_labels(void_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(3, 4, 5, 6, generator=generator)
    labels = torch.randint(0, 4, (3, 5, 6), generator=generator)
    labels[torch.rand(3, 5, 6, generator=generator) < 0.3] = void_id
    labels[2] = void_id  # an image without a valid pixel
    return scores, labels


def by_brute_force(
    scores: torch.Tensor, labels: torch.Tensor, void_id: int, weights: list[float]
) -> tuple[list[float], list[float]]:
    """Each image's loss and weight, pixel by pixel."""
    losses, sums = [0.0] * len(labels), [0.0] * len(labels)
    for n, y, x in np.ndindex(*labels.shape):
        label = int(labels[n, y, x])
        if label != void_id:
            here = scores[n, :, y, x].double().numpy()
            losses[n] += weights[label] * float(np.log(np.exp(here).sum()) - here[label])
            sums[n] += weights[label]
    return losses, sums


@pytest.mark.parametrize("void_id", [255, 11])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 0.0, 7.25]])
def test_the_loss_is_the_sum_over_valid_pixels_by_brute_force(
    void_id: int, weights: list[float] | None
) -> None:
    scores, labels = scores_and_labels(void_id)
    losses, sums = by_brute_force(scores, labels, void_id, weights or [1.0] * 4)
    given = None if weights is None else torch.tensor(weights)
    torch.testing.assert_close(
        summed_cross_entropy(scores, labels, void_id, given), torch.tensor(losses)
    )
    assert weight_sums(labels, void_id, given).tolist() == sums


@pytest.mark.parametrize("reduction", get_args(Reduction))
def test_shares_of_any_split_add_up_to_the_loss_that_the_recipe_names(reduction: Reduction) -> None:
    scores, labels = scores_and_labels(255)
    weights = [0.5, 2.0, 0.0, 7.25]
    losses, sums = by_brute_force(scores, labels, 255, weights)
    expected = {
        "sum": sum(losses) / 3,
        "mean": sum(losses) / sum(sums),
        "image-mean": (losses[0] / sums[0] + losses[1] / sums[1] + 0) / 3,
    }[reduction]
    given = torch.tensor(weights)
    losses_N = summed_cross_entropy(scores, labels, 255, given)
    weights_N = weight_sums(labels, 255, given)
    for split in ([[0, 1, 2]], [[2], [0, 1]], [[1], [0], [2]]):
        shares = [
            share_of_loss(losses_N[n], weights_N[n], reduction, images=3, weight=sum(sums))
            for n in split
        ]
        assert sum(share.item() for share in shares) == pytest.approx(expected, rel=1e-6)


def test_the_weighted_mean_is_torchs() -> None:
    scores, labels = scores_and_labels(255)
    weights = torch.tensor([0.5, 2.0, 0.25, 7.25])
    theirs = torch.nn.CrossEntropyLoss(weights, ignore_index=255)(scores, labels)
    sums = weight_sums(labels, 255, weights)
    losses = summed_cross_entropy(scores, labels, 255, weights)
    ours = share_of_loss(losses, sums, "mean", images=3, weight=sums.sum().item())
    torch.testing.assert_close(ours, theirs)


def test_a_void_pixel_has_no_gradient_and_a_valid_one_has_softmax_minus_truth() -> None:
    scores, labels = scores_and_labels(255)
    scores.requires_grad_()
    summed_cross_entropy(scores, labels, 255).sum().backward()
    assert scores.grad is not None
    void = (labels == 255)[:, None]
    assert (scores.grad * void).abs().max() == 0
    truth = torch.nn.functional.one_hot(labels.clamp(max=3), 4).movedim(-1, 1)
    expected = (scores.detach().softmax(1) - truth) * ~void
    torch.testing.assert_close(scores.grad, expected)


@pytest.mark.parametrize("reduction", get_args(Reduction))
def test_an_all_void_batch_has_zero_loss_and_zero_gradient(reduction: Reduction) -> None:
    scores = torch.randn(1, 4, 3, 3, requires_grad=True)
    labels = torch.full((1, 3, 3), 255)
    sums = weight_sums(labels, 255)
    losses = summed_cross_entropy(scores, labels, 255)
    loss = share_of_loss(losses, sums, reduction, images=1, weight=sums.sum().item())
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None
    assert scores.grad.abs().max() == 0


def test_the_sum_does_not_lose_precision_in_bfloat16() -> None:
    scores, labels = torch.zeros(1, 21, 375, 500, dtype=torch.bfloat16), torch.zeros(1, 375, 500)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = summed_cross_entropy(scores, labels.long(), 255)
    # A 500x375 VOC image before the first step: 187,500 ln 21.
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(570_848, rel=1e-5)
