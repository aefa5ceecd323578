"""Scores at every shift of the input, in two ways that give the same (paper, section 3.2).

The coarse scores of a network of stride f lie f pixels apart. Shift-and-stitch runs the unchanged
layers on f^2 inputs, each with other counts of zero rows and columns before the image, and
interlaces what they give. Filter rarefaction sets every stride to 1 and spreads each later filter
by the strides left out: ``f'_ij = f_(i/s)(j/s)`` where s divides i and j and zero elsewhere, which
is dilation (à trous).

Why they agree at every position, borders included: let x be a position of a map with all strides 1
and d the stride that the layers before it have in the network. The map reaches from 0 up to
`dense_size`; each d-th position from 0 is one of the network's own map. An input shifted by s has
the positions ``x = d X - s``. Those outside the map are where the network has its zero padding or
nothing, so they are set to zero after every layer (`ShiftedExtents`); what a bias or an overlapping
window put there would otherwise come back in through the padding of the next layer. The scores so
are those of the paper's plain shifts wherever no inner padding is seen, and elsewhere those that
the network has at its own positions, continued to all shifts.

`stitching_cost` says what each way takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fcn_model.backbones.trunk import Trunk
from fcn_model.errors import SpecError
from fcn_model.extents import Extents
from fcn_model.geometry import Coordinates, coordinates
from fcn_model.network import FCN
from fcn_model.rarefaction import rarefied_map
from fcn_model.shifts import stitched_map


class Dense(NamedTuple):
    """Scores (N, K, h, w) one pixel apart, and where they lie in the image.

    Score (y, x) belongs to pixel ``(y + offset, x + offset)`` of the coordinates' offset, which may
    end in a half; [::f, ::f] are the network's own coarse scores (score_fr).
    """

    scores_NKhw: Tensor
    coordinates: Coordinates


def rarefied(network: FCN, images_NCHW: Tensor) -> Dense:
    """The dense scores by filter rarefaction: each layer once, on maps as large as the image.

    Takes ``sum m (d n)^2`` multiply-adds for layers of m per position and maps of n x n positions d
    pixels apart in the network; FCN-32s VGG16 at 500 x 500: 38 T (the network: 0.18 T) and 8.4 GB.

    ``network`` has no skips and is in evaluation mode; the images (N, C, H, W), of
    any H and W from 1, are normalized. No gradient is kept. Raises SpecError for another network
    and ValueError for images or a mode that do not fit.
    """
    _check(network, images_NCHW)
    with torch.no_grad():
        parts = [
            scores(rarefied_map(trunk.steps, layers, part_NCHW))
            for trunk, layers, scores, part_NCHW in _streams(network, images_NCHW)
        ]
    return Dense(_mean(parts), _pixels(network))


def stitched(network: FCN, images_NCHW: Tensor, *, at_once: int = 8) -> Dense:
    """The dense scores by shift-and-stitch: f^2 = 1024 passes of the unchanged layers.

    Takes about ``f^2 sum m n^2`` multiply-adds, and the memory of ``at_once`` passes, which are a
    batch, beside the scores; FCN-32s VGG16 at 500 x 500: 195 T and 0.3 GB for each of a batch.
    Otherwise like `rarefied`.
    """
    _check(network, images_NCHW)
    if at_once < 1:
        raise ValueError(f"at_once is a number of shifts from 1, got {at_once}")
    with torch.no_grad():
        parts = [
            stitched_map(trunk.steps, layers, part_NCHW, scores, at_once)
            for trunk, layers, scores, part_NCHW in _streams(network, images_NCHW)
        ]
    return Dense(_mean(parts), _pixels(network))


class _Stream(NamedTuple):
    """A trunk, its layers, its coarse scores of all tasks one after another, and its input."""

    trunk: Trunk
    layers: Mapping[str, nn.Module]
    scores: Callable[[Tensor], Tensor]
    part_NCHW: Tensor


def _streams(network: FCN, images_NCHW: Tensor) -> Iterator[_Stream]:
    for trunk, layers, part_NCHW in network.streams(images_NCHW):
        heads = [layers[f"score_fr{head.suffix}"] for head in network.heads]
        yield _Stream(trunk, layers, partial(_all_scores, heads), part_NCHW)


def _all_scores(heads: Sequence[nn.Module], top_NChw: Tensor) -> Tensor:
    return torch.cat([head(top_NChw) for head in heads], 1)


def _mean(parts: Sequence[Tensor]) -> Tensor:
    """The mean over streams, as `SkipHead` takes it."""
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).mean(0)


def _pixels(network: FCN) -> Coordinates:
    steps = network.backbone.steps
    return Coordinates(offset=coordinates(step.geometry for step in steps).offset)


def _check(network: FCN, images_NCHW: Tensor) -> None:
    spec = network.spec
    if spec.head != "fcn32s":
        raise SpecError(
            "dense scores at every shift are those of a trunk without skips (head fcn32s), "
            f"got {spec.name}; a skip's scores already lie closer than the top's"
        )
    if network.training:
        raise ValueError("dense scores need a network in evaluation mode: call network.eval()")
    Extents.of_batch(images_NCHW, None, spec.in_channels)
