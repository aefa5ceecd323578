"""How often each class is seen, counted exactly, and the weights in the loss that follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Weighting = Literal["none", "median-frequency", "enet"]

ENET_OFFSET = 1.02
"""ENet's constant c, which holds weights between 1.4 and 50.5."""


@dataclass(frozen=True)
class LabelCounts:
    """Pixels of each class, and pixels of the images that contain it: two (K,) int64.

    An image's pixels are all of them, void included. Counts of any split of the labels add up to
    the same.
    """

    pixels: NDArray[np.int64]
    image_pixels: NDArray[np.int64]

    @classmethod
    def of_label(cls, label: NDArray[np.uint8], num_classes: int) -> LabelCounts:
        """Count one label (H, W); ids of ``num_classes`` and above are void."""
        pixels = np.bincount(label.ravel(), minlength=256)[:num_classes].astype(np.int64)
        return cls(pixels, np.where(pixels > 0, label.size, 0).astype(np.int64))

    @classmethod
    def none(cls, num_classes: int) -> LabelCounts:
        """The counts of no label."""
        return cls(np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64))

    def __add__(self, other: LabelCounts) -> LabelCounts:
        return LabelCounts(self.pixels + other.pixels, self.image_pixels + other.image_pixels)

    def weights(self, weighting: Weighting) -> NDArray[np.float64] | None:
        """The (K,) class weights of the loss; None for ``none``.

        ``median-frequency`` is SegNet's (after Eigen and Fergus): median(f) / f[c], where f[c] is
        the pixels of c by the pixels of the images that contain c, and the median is over the
        classes that occur. ``enet`` is ENet's 1 / ln(1.02 + p[c]), where p[c] is the share of c
        among all valid pixels. A class that no label holds gets 0 and 1 / ln 1.02: no pixel asks.
        """
        if weighting == "none":
            return None
        if weighting == "enet":
            shares = self.pixels / max(int(self.pixels.sum()), 1)
            return 1 / np.log(ENET_OFFSET + shares)
        there = self.pixels > 0
        frequencies = self.pixels[there] / self.image_pixels[there]
        weights = np.zeros(len(self.pixels))
        if there.any():
            weights[there] = np.median(frequencies) / frequencies
        return weights

    def to_dict(self) -> dict[str, Any]:
        """A value that JSON can hold; `from_dict` reads it back."""
        return {"pixels": self.pixels.tolist(), "image_pixels": self.image_pixels.tolist()}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> LabelCounts:
        """Read what `to_dict` wrote."""
        counts = (np.array(value[name], np.int64) for name in ("pixels", "image_pixels"))
        return cls(*counts)
