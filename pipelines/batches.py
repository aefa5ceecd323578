"""Batches of views of unequal sizes, as the network takes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fcn_model import ModelConfig
from pipelines.augment import View
from pipelines.decoding import Pair
from pipelines.errors import InputError


@dataclass(frozen=True)
class Batch:
    """Input and labels of one pass, padded to the largest on the right and at the bottom.

    ``images_NCHW`` float32: the color channels, then those of further planes, normalized, zero
    outside each image. ``labels_NHW`` int64 for each task, void outside each image and where the
    loss does not count. ``sizes`` the (height, width) of each frame. ``images`` is how many of them
    are images: none of a batch that only fills a place.
    """

    images_NCHW: torch.Tensor
    labels_NHW: tuple[torch.Tensor, ...]
    sizes: tuple[tuple[int, int], ...]
    images: int


def collate(views: Sequence[View], config: ModelConfig) -> Batch:
    """Stack views of any sizes into one batch; at least one is needed."""
    height, width = (max(view.size[axis] for view in views) for axis in range(2))
    images = torch.zeros((len(views), config.spec.in_channels, height, width))
    labels = tuple(
        torch.full((len(views), height, width), classes.void_id, dtype=torch.int64)
        for classes in config.class_lists
    )
    for index, view in enumerate(views):
        h, w = view.pair.label.shape
        top, left = view.corner
        window = slice(top, top + h), slice(left, left + w)
        images[(index, slice(None), *window)] = _input_of(view, config)
        for task_labels, label, classes in zip(
            labels, _labels_of(view, config), config.class_lists, strict=True
        ):
            task_labels[(index, *window)] = torch.from_numpy(label.astype(np.int64))
            if view.kept is not None:
                left_out = torch.from_numpy(~view.kept)
                task_labels[index, : view.size[0], : view.size[1]][left_out] = classes.void_id
    return Batch(images, labels, tuple(view.size for view in views), len(views))


def filler(config: ModelConfig) -> Batch:
    """One void pixel: no loss and no gradient, but a part in what all workers do together."""
    labels = (torch.full((1, 1, 1), classes.void_id) for classes in config.class_lists)
    return Batch(torch.zeros((1, config.spec.in_channels, 1, 1)), tuple(labels), ((1, 1),), 0)


def _input_of(view: View, config: ModelConfig) -> torch.Tensor:
    """The visible input (C, h, w), normalized."""
    # ascontiguousarray: a mirrored view has a negative stride, and the batch is read-only.
    parts = [config.normalization(np.ascontiguousarray(view.pair.image))]
    for name, normalization in config.planes:
        parts.append(normalization(np.ascontiguousarray(plane_of(view.pair, name))))
    return torch.cat(parts)


def _labels_of(view: View, config: ModelConfig) -> list[NDArray[np.uint8]]:
    """The visible label (h, w) of every task."""
    further = (plane_of(view.pair, task.name) for task in config.spec.more_tasks)
    return [view.pair.label, *further]


def plane_of(pair: Pair, name: str) -> NDArray[np.generic]:
    """A further plane of a pair. Raises InputError naming the image if it has not got it."""
    if name not in pair.planes:
        raise InputError(
            f"image {pair.key} has no {name} beside it, which the network needs; it has "
            f"{sorted(pair.planes) or 'no further plane'}; prepare the data from a layout with one"
        )
    return pair.planes[name]
