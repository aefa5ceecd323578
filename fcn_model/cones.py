"""What a stretch of the mask depends on: its cone, back through every path of the network.

A score is made from a few coarse ones, those from windows of the feature maps, and those from
pixels. Followed backwards through upsamplings, skips and the trunk, a stretch of the mask ends at a
stretch of the image, which may reach into the zeros of the first convolution's padding. Positions
on one axis are counted here from the first of these zeros, where the maps of the network begin.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from fcn_model.backbones import backbone
from fcn_model.geometry import Interval, Layer, before, stride
from fcn_model.heads import SkipHead
from fcn_model.spec import NetworkSpec


@dataclass(frozen=True, kw_only=True)
class Seam:
    """How two neighbouring windows of one axis divide the mask between them.

    Where the right window starts at ``start``, the left one stops at ``start + overlap`` and the
    mask is cut at ``start + lead``, in pixels of the image. Each has all that its part depends on.
    """

    lead: int
    overlap: int


@dataclass(frozen=True)
class Cone:
    """The cone of a network on one axis; that of every task and stream is the same."""

    head: SkipHead

    @property
    def first(self) -> Layer:
        """The first convolution on an image whose padding is part of it."""
        return replace(self.head.score_path[0], pad=0)

    @property
    def pad(self) -> int:
        """Zeros at each end of the image: where pixel 0 lies."""
        return self.head.score_path[0].pad

    @property
    def stride(self) -> int:
        """Windows that start at multiples of this have the poolings and crops of the whole."""
        return stride(self.head.score_path)

    def needed(self, begin: int, end: int) -> Interval:
        """The smallest interval on which positions [begin, end) of the mask depend.

        It is that of an image without ends: what lies before 0 or behind the image and its padding
        does not exist and is not missed.
        """
        head = self.head
        here = before(head.final_geometry, _moved((begin, end), head.final_offset))
        ends: list[Interval] = []
        for fusion in reversed(head.fusions):
            ends.append(_back(fusion.skip_path, _moved(here, fusion.offset)))
            here = before(fusion.geometry, _moved(here, fusion.trim))
        ends.append(_back(head.score_path, here))
        start, stop = min(start for start, _ in ends), max(stop for _, stop in ends)
        return _moved((start, stop), self.pad)

    @cached_property
    def seam(self) -> Seam:
        """The cut between two windows far from any border that shares the fewest pixels."""
        seams = []
        for cut in range(self.stride):
            start = self.needed(cut, cut + 1)[0] // self.stride * self.stride
            stop = self.needed(cut - 1, cut)[1]
            seams.append(Seam(lead=cut - start, overlap=stop - start))
        return min(seams, key=lambda seam: seam.overlap)


@lru_cache(maxsize=64)
def cone_of(spec: NetworkSpec) -> Cone:
    """The cone of the network that ``spec`` describes, by its geometry alone: no tensor is made."""
    return Cone(SkipHead(spec, backbone(spec), spec.tasks[0]))


def _back(path: Iterable[Layer], outputs: Interval) -> Interval:
    for layer in reversed(tuple(path)):
        outputs = before(layer, outputs)
    return outputs


def _moved(interval: Interval, by: int) -> Interval:
    return interval[0] + by, interval[1] + by
