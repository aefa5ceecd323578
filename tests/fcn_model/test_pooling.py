"""Pooling is torch's, whichever way it is done."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from fcn_model.geometry import Layer
from fcn_model.pooling import max_pool

PAIRS = Layer(2, stride=2, ceil=True)


@pytest.mark.parametrize(
    "geometry", [PAIRS, Layer(2, stride=2), Layer(3, stride=2, ceil=True), Layer(3, pad=1)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("grad", [False, True])
def test_it_is_torchs_at_every_size_with_what_is_no_number(
    geometry: Layer, dtype: torch.dtype, grad: bool
) -> None:
    g = geometry
    for height, width in itertools.product(range(3, 9), range(3, 9)):
        x = torch.randn(2, 5, height, width).to(dtype)
        x[0, 1, 2, 1], x[1, 0, -1, -1] = torch.nan, -torch.inf
        wanted = F.max_pool2d(x, g.kernel, g.stride, g.pad, ceil_mode=g.ceil)
        for memory_format in (torch.contiguous_format, torch.channels_last):
            given = x.contiguous(memory_format=memory_format)
            with torch.set_grad_enabled(grad):
                made = max_pool(given, g)
            torch.testing.assert_close(made, wanted, rtol=0, atol=0, equal_nan=True)
            assert torch.equal(given.isnan(), x.isnan())


def test_a_single_row_or_column_is_pooled_where_torch_rounds_up() -> None:
    for height, width in ((1, 1), (1, 6), (7, 1)):
        x = torch.randn(1, 3, height, width)
        wanted = F.max_pool2d(x, 2, 2, ceil_mode=True)
        with torch.no_grad():
            assert torch.equal(max_pool(x, PAIRS), wanted)
