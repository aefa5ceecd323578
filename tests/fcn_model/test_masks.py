"""Masks from the scores before the last enlargement, beside those of enlarged scores."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fcn_model import enlarging
from fcn_model.enlarging import enlarged_argmax
from fcn_model.geometry import Layer
from fcn_model.layers import BilinearUpsample
from fcn_model.masks import masks
from fcn_model.outcomes import NonFiniteError
from tests.support.networks import random_network


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("at_once", [1, enlarging.AT_ONCE])
@pytest.mark.parametrize(
    ("factor", "kernel", "offset"),
    [(8, 16, (31, 40)), (32, 64, (19, 19)), (32, 63, (18, 18)), (4, 7, (0, 3)), (2, 4, (0, 0))],
)
def test_the_best_class_is_that_of_the_enlarged_scores(
    factor: int, kernel: int, offset: tuple[int, int], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enlarging, "AT_ONCE", at_once)
    upsample = BilinearUpsample(5, Layer(kernel, stride=factor, transposed=True))
    scores = noise(2, 5, 7, 9)
    scores[1] = nn.functional.avg_pool2d(noise(1, 5, 11, 13, seed=1)[0], 5, 1)  # large areas
    scores[0, :, :3] = 1.0  # equal scores: the first class wins
    enlarged = upsample(scores)[:, :, offset[0] :, offset[1] :]
    for less in (0, factor - 1):
        size = enlarged.shape[2] - less, enlarged.shape[3] - less
        found = enlarged_argmax(scores, upsample.weights, offset, size)
        wanted = enlarged[:, :, : size[0], : size[1]]
        at_found = wanted.gather(1, found.long()[:, None])[:, 0]
        torch.testing.assert_close(at_found, wanted.amax(1), rtol=0, atol=1e-6)
        assert found.unique().tolist() == list(range(5))
    inside = slice(0, max(0, 2 * factor - offset[0]))
    assert not found[0, inside, factor:-factor].any()


@pytest.mark.parametrize("upsampling", ["fixed", "learned"])
@pytest.mark.parametrize("head", ["fcn32s", "fcn8s"])
def test_the_first_pixel_of_unsound_scores_is_named(head, upsampling) -> None:
    network = random_network(head, upsampling=upsampling).eval()
    one, layers = network.heads[0], dict(network.named_children())
    skipped, size, origin = (5, 9), (61, 50), (1000, 2000)
    with torch.inference_mode():
        sound = network.coarse(noise(1, 3, 75, 70))
        assert isinstance(masks(one, layers, sound, [size], skipped=skipped)[0], np.ndarray)
        seen = 0
        for row in range(sound.shape[2]):
            for column in range(0, sound.shape[3], 3):
                spoilt = sound.clone()
                spoilt[0, 1, row, column] = torch.nan if column % 2 else torch.inf
                enlarged = layers[one.final_upsample](spoilt)[0]
                top, left = (one.final_offset + begin for begin in skipped)
                window = enlarged[:, top : top + size[0], left : left + size[1]]
                wrong = (~window.isfinite().all(0)).nonzero()
                (made,) = masks(one, layers, spoilt, [size], skipped=skipped, origin=origin)
                if len(wrong) == 0:
                    assert isinstance(made, np.ndarray)
                    continue
                seen += 1
                assert isinstance(made, NonFiniteError)
                named = re.search(r"pixel \((\d+), (\d+)\)", str(made))
                assert named is not None
                first = wrong.min(0).values if upsampling == "fixed" else wrong[0]
                assert [int(n) for n in named.groups()] == [
                    first[0].item() + origin[0],
                    first[1].item() + origin[1],
                ]
        assert seen > 2
