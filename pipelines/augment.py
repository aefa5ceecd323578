"""Random mirroring and cropping of training pairs, and batches of unequal sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fcn_model import Normalization
from pipelines.ingest import Pair


@dataclass(frozen=True)
class Batch:
    """Images and labels of a step, padded to the largest on the right and at the bottom.

    ``images_N3HW`` float32, normalized, zero outside each image; ``labels_NHW`` int64, void outside
    each image; ``sizes`` the (height, width) of each.
    """

    images_N3HW: torch.Tensor
    labels_NHW: torch.Tensor
    sizes: tuple[tuple[int, int], ...]


def augment(
    pair: Pair, rng: np.random.Generator, *, mirror: bool, crop: tuple[int, int] | None
) -> Pair:
    """Mirror left-right with probability one half, and cut a random window of (height, width).

    An image smaller than the window on an axis keeps that whole axis.
    """
    image, label = pair.image, pair.label
    if crop is not None:
        top, left = (
            int(rng.integers(0, max(have - want, 0) + 1))
            for have, want in zip(label.shape, crop, strict=True)
        )
        window = slice(top, top + crop[0]), slice(left, left + crop[1])
        image, label = image[window], label[window]
    if mirror and rng.random() < 0.5:
        image, label = image[:, ::-1], label[:, ::-1]
    return Pair(pair.key, image, label)


def collate(pairs: Sequence[Pair], normalization: Normalization, void_id: int) -> Batch:
    """Stack pairs of any sizes into one batch; at least one pair is needed."""
    sizes = tuple((pair.label.shape[0], pair.label.shape[1]) for pair in pairs)
    height, width = (max(size[axis] for size in sizes) for axis in range(2))
    images = torch.zeros((len(pairs), 3, height, width)).contiguous(
        memory_format=torch.channels_last
    )
    labels = torch.full((len(pairs), height, width), void_id, dtype=torch.int64)
    for index, (pair, (h, w)) in enumerate(zip(pairs, sizes, strict=True)):
        # ascontiguousarray: a mirrored view has a negative stride, and the batch is read-only.
        images[index, :, :h, :w] = normalization(np.ascontiguousarray(pair.image))
        labels[index, :h, :w] = torch.from_numpy(pair.label.astype(np.int64))
    return Batch(images, labels, sizes)
