from __future__ import annotations

import json

import numpy as np
import pytest

from fcn_model.class_weights import LabelCounts

LABELS = [
    np.array([[0, 0, 0, 1]], np.uint8),
    np.array([[0, 2], [255, 2]], np.uint8),
    np.array([[0], [0], [0], [0], [1], [7]], np.uint8),
]
CLASSES = 4  # class 3 occurs nowhere; 7 and 255 are void


def counted(labels: list[np.ndarray]) -> LabelCounts:
    return sum((LabelCounts.of_label(one, CLASSES) for one in labels), LabelCounts.none(CLASSES))


def test_median_frequency_is_segnets_by_hand() -> None:
    counts = counted(LABELS)
    assert counts.pixels.tolist() == [3 + 1 + 4, 1 + 1, 2, 0]
    assert counts.image_pixels.tolist() == [4 + 4 + 6, 4 + 6, 4, 0]
    # Frequencies 8/14, 2/10 and 2/4 have the median 1/2.
    weights = counts.weights("median-frequency")
    assert weights == pytest.approx([0.5 / (8 / 14), 0.5 / 0.2, 1.0, 0.0])


def test_enet_is_the_inverse_logarithm_of_the_share_among_valid_pixels() -> None:
    weights = counted(LABELS).weights("enet")
    expected = [1 / np.log(1.02 + share) for share in (8 / 12, 2 / 12, 2 / 12, 0)]
    assert weights == pytest.approx(expected)
    assert counted(LABELS).weights("none") is None
    assert counted([]).weights("enet") == pytest.approx([50.4983] * CLASSES, abs=1e-3)
    assert counted([]).weights("median-frequency") == pytest.approx([0.0] * CLASSES)


def test_counts_of_any_order_and_split_are_equal_and_survive_json() -> None:
    whole = counted(LABELS)
    split = counted(LABELS[2:]) + counted(LABELS[:2])
    back = LabelCounts.from_dict(json.loads(json.dumps(whole.to_dict())))
    for other in (split, back):
        assert other.pixels.dtype == np.int64
        assert (other.pixels == whole.pixels).all()
        assert (other.image_pixels == whole.image_pixels).all()
