"""Masks from the scores before the last enlargement, beside those of enlarged scores."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor

from fcn_model import enlarging
from fcn_model.masks import classified, masks
from fcn_model.outcomes import NonFiniteError, Outcome
from tests.support.enlarged import KERNELS, agrees_with_enlarged_scores
from tests.support.networks import random_network


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("at_once", [1, enlarging.AT_ONCE])
@pytest.mark.parametrize(("factor", "kernel", "offset"), KERNELS)
def test_the_best_class_is_that_of_the_enlarged_scores(
    factor: int, kernel: int, offset: tuple[int, int], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enlarging, "AT_ONCE", at_once)
    agrees_with_enlarged_scores(enlarging.enlarged_argmax, factor, kernel, offset)


@pytest.mark.parametrize("upsampling", ["fixed", "learned"])
@pytest.mark.parametrize("head", ["fcn32s", "fcn8s"])
def test_the_first_pixel_of_unsound_scores_is_named(head, upsampling) -> None:
    network = random_network(head, upsampling=upsampling).eval()
    one, layers = network.heads[0], dict(network.named_children())
    skipped, size, origin = (5, 9), (61, 50), (1000, 2000)
    with torch.inference_mode():

        def made_of(coarse: Tensor) -> Outcome:
            found = classified(one, layers, coarse, size, skipped=skipped)
            (made,) = masks(one, layers, found, [size], skipped=skipped, origin=origin)
            return made

        sound = network.coarse(noise(1, 3, 75, 70))
        assert isinstance(made_of(sound), np.ndarray)
        seen = 0
        for row in range(sound.shape[2]):
            for column in range(0, sound.shape[3], 3):
                spoilt = sound.clone()
                spoilt[0, 1, row, column] = torch.nan if column % 2 else torch.inf
                enlarged = layers[one.final_upsample](spoilt)[0]
                top, left = (one.final_offset + begin for begin in skipped)
                window = enlarged[:, top : top + size[0], left : left + size[1]]
                wrong = (~window.isfinite().all(0)).nonzero()
                made = made_of(spoilt)
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
