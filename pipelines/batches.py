"""Batches of views of unequal sizes, as the network takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """Stack views of any sizes into one batch; at least one is needed.

    In numpy: torch would deal each of these copies to all its threads, of which every one waits for
    the slowest, and other processes use the same cores.
    """
    height, width = (max(view.size[axis] for view in views) for axis in range(2))
    images = np.zeros((len(views), config.spec.in_channels, height, width), np.float32)
    labels = [
        np.full((len(views), height, width), classes.void_id, np.int64)
        for classes in config.class_lists
    ]
    for index, view in enumerate(views):
        h, w = view.pair.label.shape
        top, left = view.corner
        window = slice(top, top + h), slice(left, left + w)
        channel = 0
        for part_Chw in _inputs_of(view, config):
            images[(index, slice(channel, channel + len(part_Chw)), *window)] = part_Chw
            channel += len(part_Chw)
        for task_labels, label, classes in zip(
            labels, _labels_of(view, config), config.class_lists, strict=True
        ):
            task_labels[(index, *window)] = label
            if view.kept is not None:
                frame = task_labels[index, : view.size[0], : view.size[1]]
                frame[~view.kept] = classes.void_id
    return Batch(
        torch.from_numpy(images),
        tuple(map(torch.from_numpy, labels)),
        tuple(view.size for view in views),
        len(views),
    )


def filler(config: ModelConfig) -> Batch:
    """One void pixel: no loss and no gradient, but a part in what all workers do together."""
    labels = (torch.full((1, 1, 1), classes.void_id) for classes in config.class_lists)
    return Batch(torch.zeros((1, config.spec.in_channels, 1, 1)), tuple(labels), ((1, 1),), 0)


def _inputs_of(view: View, config: ModelConfig) -> Iterator[NDArray[np.float32]]:
    """The visible input, normalized: (C, h, w) of the image and of each further plane."""
    yield config.normalization(view.pair.image).numpy()
    for name, normalization in config.planes:
        yield normalization(plane_of(view.pair, name)).numpy()


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
