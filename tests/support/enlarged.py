"""What both ways to the best class of enlarged scores must do, with any kernel."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fcn_model.geometry import Layer
from fcn_model.layers import BilinearUpsample

KERNELS = [
    (8, 16, (31, 40)),
    (32, 64, (19, 19)),
    (32, 63, (18, 18)),
    (4, 7, (0, 3)),
    (2, 4, (0, 0)),
]
"""Factor, size, and where the window begins."""


def agrees_with_enlarged_scores(
    enlarged_argmax: Callable[..., Tensor],
    factor: int,
    kernel: int,
    offset: tuple[int, int],
    device: torch.device | None = None,
) -> None:
    """Every class found has the best of the scores that `BilinearUpsample` gives the pixel."""
    upsample = BilinearUpsample(5, Layer(kernel, stride=factor, transposed=True)).to(device)
    scores = torch.randn((2, 5, 7, 9), generator=torch.Generator().manual_seed(0))
    large = torch.randn((5, 11, 13), generator=torch.Generator().manual_seed(1))
    scores[1] = nn.functional.avg_pool2d(large, 5, 1)  # large areas
    scores[0, :, :3] = 1.0  # equal scores: the first class wins
    scores = scores.to(device)
    enlarged = upsample(scores)[:, :, offset[0] :, offset[1] :]
    for less in ((0, 0), (1, 2), (factor - 1, factor - 1)):
        size = enlarged.shape[2] - less[0], enlarged.shape[3] - less[1]
        found = enlarged_argmax(scores, upsample.weights, offset, size)
        wanted = enlarged[:, :, : size[0], : size[1]]
        at_found = wanted.gather(1, found.long()[:, None])[:, 0]
        torch.testing.assert_close(at_found, wanted.amax(1), rtol=0, atol=1e-6)
        assert found.unique().tolist() == list(range(5))
        inside = slice(0, max(0, 2 * factor - offset[0]))
        assert not found[0, inside, factor:-factor].any()
