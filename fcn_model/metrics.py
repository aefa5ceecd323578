"""The paper's four scores from one integer table, which adds up over images, workers and attempts.

Scores are those of the reference's ``score.py``: over the whole data set, never means of means.
Codebases disagree on classes that are absent from the truth; ``mean_iu`` follows the reference
(skipped if also never predicted, else IU 0), and the other two conventions stand beside it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


class Confusion:
    """Pixel counts (K, K) int64: rows are the truth, columns the masks. Add them with ``+``.

    Scores are fractions in 0..1, NaN where nothing was counted that could define them.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts: NDArray[np.int64] = np.zeros((num_classes, num_classes), np.int64)

    @classmethod
    def from_counts(cls, counts: ArrayLike) -> Confusion:
        """A copy of a (K, K) table of counts. Raises ValueError if it is none."""
        table = np.asarray(counts)
        square = table.ndim == 2 and table.shape[0] == table.shape[1]
        if not square or not np.issubdtype(table.dtype, np.integer) or (table < 0).any():
            raise ValueError(
                "confusion counts are a square table of integers from 0, "
                f"got {table.dtype} {table.shape}"
            )
        confusion = cls(len(table))
        confusion.counts += table.astype(np.int64)
        return confusion

    def update(self, labels: NDArray[np.integer], masks: NDArray[np.integer], void_id: int) -> None:
        """Count the pixels of labels and masks of one shape, except where the label is void.

        Raises ValueError, naming the value, for an id outside 0..K-1: in ``labels`` other than
        ``void_id``, in ``masks`` where the label is not void.
        """
        if labels.shape != masks.shape:
            raise ValueError(f"labels are {labels.shape} but masks are {masks.shape}")
        valid = labels != void_id
        truth = labels[valid].astype(np.int64)
        predicted = masks[valid].astype(np.int64)
        classes = len(self.counts)
        for what, ids in (("label", truth), ("mask", predicted)):
            outside = ids[(ids < 0) | (ids >= classes)]
            if outside.size:
                raise ValueError(
                    f"{what} id {outside[0]} is outside the classes 0..{classes - 1} "
                    f"(void is {void_id})"
                )
        pairs = np.bincount(classes * truth + predicted, minlength=classes * classes)
        self.counts += pairs.reshape(classes, classes)

    def __add__(self, other: Confusion) -> Confusion:
        if not isinstance(other, Confusion):
            return NotImplemented
        if len(self.counts) != len(other.counts):
            raise ValueError(
                f"counts of {len(self.counts)} classes and of {len(other.counts)} classes "
                "do not add up"
            )
        return Confusion.from_counts(self.counts + other.counts)

    def __repr__(self) -> str:
        return f"Confusion({self.counts.tolist()})"

    @property
    def pixel_accuracy(self) -> float:
        """The share of valid pixels whose class is right."""
        return float(_divide(np.trace(self.counts), self.counts.sum()))

    @property
    def mean_accuracy(self) -> float:
        """The mean of `accuracy` over the classes that occur in the truth."""
        return _nanmean(self.accuracy())

    @property
    def mean_iu(self) -> float:
        """The mean of `iu` over the classes that occur in the truth or in the masks."""
        return _nanmean(self.iu())

    @property
    def mean_iu_gt_present(self) -> float:
        """The mean of `iu` over the classes that occur in the truth (the paper on SIFT Flow)."""
        return _nanmean(np.where(self._truth() > 0, self.iu(), np.nan))

    @property
    def mean_iu_absent_as_zero(self) -> float:
        """The mean of `iu` over all K classes, 0 for one that occurs nowhere."""
        if not self.counts.sum():
            return float("nan")
        return float(np.nan_to_num(self.iu()).mean())

    @property
    def frequency_weighted_iu(self) -> float:
        """The sum of `iu` times each class's share of the valid pixels."""
        return float(_divide(np.nansum(self._truth() * self.iu()), self.counts.sum()))

    def iu(self) -> Floats:
        """(K,) intersection over union; NaN for a class in neither truth nor masks."""
        right = np.diag(self.counts)
        return _divide(right, self._truth() + self.counts.sum(axis=0) - right)

    def accuracy(self) -> Floats:
        """(K,) share of each class's pixels that are right; NaN for a class not in the truth."""
        return _divide(np.diag(self.counts), self._truth())

    def _truth(self) -> NDArray[np.int64]:
        return self.counts.sum(axis=1)


def _divide(part: ArrayLike, whole: ArrayLike) -> Floats:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _nanmean(values: Floats) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
