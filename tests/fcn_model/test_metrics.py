from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_jaccard_index,
)

from fcn_model import Confusion

GOLDEN = [[50, 2, 0, 3], [4, 30, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_the_scores_of_the_golden_example_are_the_references() -> None:
    confusion = Confusion.from_counts(GOLDEN)
    assert confusion.pixel_accuracy == pytest.approx(0.888889, abs=5e-7)
    assert confusion.mean_accuracy == pytest.approx(0.883117, abs=5e-7)
    assert confusion.mean_iu == pytest.approx(0.552756, abs=5e-7)
    assert confusion.frequency_weighted_iu == pytest.approx(0.833206, abs=5e-7)
    assert confusion.mean_iu_gt_present == pytest.approx(0.829134, abs=5e-7)
    assert confusion.mean_iu_absent_as_zero == pytest.approx(0.414567, abs=5e-7)
    expected = [0.847458, 0.810811, np.nan, 0]
    np.testing.assert_allclose(confusion.iu(), expected, atol=5e-7)
    np.testing.assert_allclose(confusion.accuracy(), [50 / 55, 30 / 35, np.nan, np.nan])


@pytest.mark.parametrize("void_id", [255, 7])
def test_scores_agree_with_torchmetrics_on_random_maps(void_id: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, (3, 40, 50), dtype=np.uint8)
    masks = np.where(rng.random(labels.shape) < 0.6, labels, rng.integers(0, 7, labels.shape))
    labels[rng.random(labels.shape) < 0.1] = void_id
    confusion = Confusion(7)
    confusion.update(labels, masks.astype(np.uint8), void_id)
    given = torch.from_numpy(masks).long(), torch.from_numpy(labels).long()
    table = multiclass_confusion_matrix(*given, 7, ignore_index=void_id)
    np.testing.assert_array_equal(confusion.counts, table.numpy())
    jaccard = multiclass_jaccard_index(*given, 7, ignore_index=void_id, average="none")
    np.testing.assert_allclose(confusion.iu(), jaccard.numpy(), rtol=1e-6)
    assert confusion.mean_iu == pytest.approx(jaccard.mean().item())


@settings(deadline=None, derandomize=True)  # a busy machine is no failure
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_counts_add_up_to_the_same_under_any_split(seed: int, parts: int) -> None:
    rng = np.random.default_rng(seed)
    labels, masks = rng.integers(0, 4, (2, 60), dtype=np.uint8)
    labels[rng.random(60) < 0.2] = 255
    whole = Confusion(4)
    whole.update(labels, masks, 255)
    total = Confusion(4)
    owner = rng.integers(0, parts, 60)
    for part in range(parts):
        one = Confusion(4)
        one.update(labels[owner == part], masks[owner == part], 255)
        total = total + one
    np.testing.assert_array_equal(total.counts, whole.counts)


def test_counts_do_not_overflow_a_byte() -> None:
    confusion = Confusion(256)
    confusion.update(np.full(3, 254, np.uint8), np.full(3, 255, np.uint8), 255)
    assert confusion.counts[254, 255] == 3 == confusion.counts.sum()


def test_scores_of_nothing_are_undefined_not_errors() -> None:
    nothing = Confusion(3)
    nothing.update(np.full((2, 2), 255), np.zeros((2, 2), int), 255)
    for score in (
        nothing.pixel_accuracy,
        nothing.mean_accuracy,
        nothing.mean_iu,
        nothing.mean_iu_gt_present,
        nothing.mean_iu_absent_as_zero,
        nothing.frequency_weighted_iu,
    ):
        assert np.isnan(score)


def test_what_cannot_be_counted_is_refused_by_value() -> None:
    confusion = Confusion(3)
    with pytest.raises(ValueError, match=r"label id 3 is outside the classes 0..2 \(void is 255\)"):
        confusion.update(np.array([0, 3, 255]), np.array([0, 0, 0]), 255)
    with pytest.raises(ValueError, match="label id -1 is outside"):
        confusion.update(np.array([-1]), np.array([0]), 255)
    with pytest.raises(ValueError, match="mask id 9 is outside"):
        confusion.update(np.array([1]), np.array([9]), 255)
    with pytest.raises(ValueError, match=r"labels are \(2,\) but masks are \(3,\)"):
        confusion.update(np.zeros(2, int), np.zeros(3, int), 255)
    assert confusion.counts.sum() == 0


@pytest.mark.parametrize("table", [[[1, 2]], [[1.5]], [[-1]], 3])
def test_a_table_that_holds_no_counts_is_refused(table: object) -> None:
    with pytest.raises(ValueError, match="square table of integers from 0"):
        Confusion.from_counts(table)  # type: ignore[arg-type]


def test_tables_of_unequal_size_do_not_add() -> None:
    with pytest.raises(ValueError, match="counts of 2 classes and of 3 classes"):
        Confusion(2) + Confusion(3)
