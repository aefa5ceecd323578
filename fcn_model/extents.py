"""How far each image of a batch reaches in a map, and zeros beyond: exact batches of unequal sizes.

Images of a batch are zero-filled on the right and at the bottom to one canvas. After a convolution
the fill would hold its bias, and the next layer would let it into the image. Zeroing every map
outside each image's own extent puts there what the image alone has: its zero padding, or nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from fcn_model.geometry import Layer, output_size


class Extents:
    """The (height, width) of each image at some map of the network; None if all fill the canvas."""

    def __init__(self, sizes: Sequence[tuple[int, int]] | None) -> None:
        self.sizes = None if sizes is None else tuple(sizes)

    @classmethod
    def of_batch(
        cls, images_NCHW: Tensor, sizes: Sequence[tuple[int, int]] | None, channels: int = 3
    ) -> Extents:
        """Check the sizes of a batch against its canvas. Raises ValueError naming what is wrong."""
        if images_NCHW.ndim != 4 or images_NCHW.shape[1] != channels or 0 in images_NCHW.shape:
            raise ValueError(
                f"images must be (N, {channels}, H, W) with N, H and W of at least 1, "
                f"got {tuple(images_NCHW.shape)}"
            )
        count, _, height, width = images_NCHW.shape
        if sizes is None:
            return cls(None)
        if len(sizes) != count:
            raise ValueError(f"sizes must name every image: {count} images, {len(sizes)} sizes")
        for index, (h, w) in enumerate(sizes):
            if not (1 <= h <= height and 1 <= w <= width):
                raise ValueError(
                    f"size {index} is {(h, w)}, outside the canvas {(height, width)} "
                    "(height before width)"
                )
        if all((h, w) == (height, width) for h, w in sizes):
            return cls(None)
        return cls([(int(h), int(w)) for h, w in sizes])

    def through(self, path: Iterable[Layer]) -> Extents:
        """The extents after the layers of ``path``."""
        if self.sizes is None:
            return self
        layers = tuple(path)
        return Extents([(output_size(layers, h), output_size(layers, w)) for h, w in self.sizes])

    def overlap(self, skip: int, other: Extents, other_skip: int) -> Extents:
        """The extents of two maps laid over each other, each without so many first positions."""
        if self.sizes is None or other.sizes is None:
            return self
        return Extents(
            [
                (min(h - skip, oh - other_skip), min(w - skip, ow - other_skip))
                for (h, w), (oh, ow) in zip(self.sizes, other.sizes, strict=True)
            ]
        )

    def clear_(self, map_NChw: Tensor) -> None:
        """Set the map to zero outside each image's extent, in place."""
        if self.sizes is None:
            return
        if map_NChw.requires_grad:
            # One multiplication in the graph; slices would each copy the gradient of the whole map.
            map_NChw.mul_(self._mask_of(map_NChw))
            return
        for image_Chw, (height, width) in zip(map_NChw, self.sizes, strict=True):
            image_Chw[:, height:] = 0
            image_Chw[:, :height, width:] = 0

    def _mask_of(self, map_NChw: Tensor) -> Tensor:
        """(N, 1, h, w), one inside and zero outside."""
        count, _, height, width = map_NChw.shape
        sizes = torch.tensor(self.sizes, device=map_NChw.device)
        rows = torch.arange(height, device=map_NChw.device) < sizes[:, :1]
        columns = torch.arange(width, device=map_NChw.device) < sizes[:, 1:]
        mask = rows.view(count, 1, height, 1) & columns.view(count, 1, 1, width)
        return mask.to(map_NChw.dtype)
