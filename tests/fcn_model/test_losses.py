from __future__ import annotations

import numpy as np
import pytest
import torch

from fcn_model.losses import summed_cross_entropy, valid_pixels


def scores_and_labels(void_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(2, 4, 5, 6, generator=generator)
    labels = torch.randint(0, 4, (2, 5, 6), generator=generator)
    labels[torch.rand(2, 5, 6, generator=generator) < 0.3] = void_id
    return scores, labels


@pytest.mark.parametrize("void_id", [255, 11])
def test_the_loss_is_the_sum_over_valid_pixels_by_brute_force(void_id: int) -> None:
    scores, labels = scores_and_labels(void_id)
    expected, counted = 0.0, 0
    for n, y, x in np.ndindex(2, 5, 6):
        label = int(labels[n, y, x])
        if label != void_id:
            here = scores[n, :, y, x].double().numpy()
            expected += float(np.log(np.exp(here).sum()) - here[label])
            counted += 1
    assert summed_cross_entropy(scores, labels, void_id).item() == pytest.approx(expected, 1e-5)
    assert valid_pixels(labels, void_id).item() == counted < 60


def test_a_void_pixel_has_no_gradient_and_a_valid_one_has_softmax_minus_truth() -> None:
    scores, labels = scores_and_labels(255)
    scores.requires_grad_()
    summed_cross_entropy(scores, labels, 255).backward()
    assert scores.grad is not None
    void = (labels == 255)[:, None]
    assert (scores.grad * void).abs().max() == 0
    truth = torch.nn.functional.one_hot(labels.clamp(max=3), 4).movedim(-1, 1)
    expected = (scores.detach().softmax(1) - truth) * ~void
    torch.testing.assert_close(scores.grad, expected)


def test_an_all_void_batch_has_zero_loss_and_zero_gradient() -> None:
    scores = torch.randn(1, 4, 3, 3, requires_grad=True)
    loss = summed_cross_entropy(scores, torch.full((1, 3, 3), 255), 255)
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
