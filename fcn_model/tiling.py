"""A window of an image through the network: the scores of a block, as the whole image has them.

A window is cut from the image with the zeros of its padding around it, so at a border it has what
the network puts there, and inside it has pixels. It starts at a multiple of the trunk's stride, so
poolings and crops fall as in the whole, and it reaches as far as the block's cone (see `cones`), so
that what layers pad at its edges does not matter.
"""

from __future__ import annotations

from torch import Tensor

from fcn_model.extents import Extents
from fcn_model.kept import Kept
from fcn_model.layers import Variant
from fcn_model.network import FCN


def coarse_scores(
    network: FCN, window_NCHW: Tensor, *, task: int = 0, kept: Kept | None = None
) -> Tensor:
    """One task's scores (N, K, h, w), before the last enlargement, of windows (N, C, H, W).

    ``window_NCHW`` is normalized and holds what `Strip` says, zeros of the padding included. The
    scores are those of the whole image but for the rounding of kernels chosen by shape. ``kept`` is
    as `FCN.forward`'s.
    """
    features = []
    for trunk, layers, part_NCHW in network.streams(window_NCHW, kept):
        first = trunk.steps[0].name
        unpadded = Variant(layers[first], padding=0)
        features.append(trunk.run({**layers, first: unpadded}, part_NCHW, Extents(None)))
    # To the head a window is an image of its own, whose pixel 0 is pixel ``start`` of the whole.
    return network.heads[task].coarse(dict(network.named_children()), features, Extents(None))
