"""Recorded passes beside passes: on a GPU for real, elsewhere with a recorder that computes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from fcn_model import ClassList, ModelConfig, Segmenter, replays
from fcn_model.normalize import TORCHVISION
from fcn_model.replays import Recording, Replays
from tests.support.networks import random_network

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="records on a GPU only")


class Doubled(NamedTuple):
    twice: Tensor


class Counted:
    """A pass that counts how often it is computed."""

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self, batch: Tensor) -> Doubled:
        self.passes += 1
        return Doubled(2 * batch)


class Recorder:
    """What a graph does, from where it reads to where it writes."""

    def __init__(self, batch: Tensor) -> None:
        self.batch, self.result, self.replays = batch.clone(), torch.empty_like(batch), 0

    def replay(self) -> None:
        self.replays += 1
        torch.mul(self.batch, 2, out=self.result)


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    made: list[Recorder] = []

    def record(_self: Replays[Any], batch: Tensor) -> Recording[Doubled]:
        made.append(Recorder(batch))
        return Recording(made[-1], made[-1].batch, Doubled(made[-1].result))  # type: ignore[arg-type]

    monkeypatch.setattr(Replays, "_record", record)
    monkeypatch.setattr(replays, "_waits", lambda batch: batch.numel() < 100)
    return made


def test_a_shape_is_recorded_once_it_has_been_seen_twice(recorders: list[Recorder]) -> None:
    work = Counted()
    double = Replays(work)
    kept = []
    for turn in range(5):
        for shape in ((1, 3, 2, 2), (1, 3, 2, 3)):
            batch = torch.full(shape, float(turn))
            kept.append((double(batch).twice, 2 * batch))
    large = torch.ones(1, 3, 9, 9)
    for _ in range(4):
        torch.testing.assert_close(double(large).twice, 2 * large)
    assert [each.replays for each in recorders] == [3, 3]
    assert work.passes == 2 * 2 + 4
    for result, wanted in kept:  # a later batch does not write into an earlier one's
        torch.testing.assert_close(result, wanted)


def test_recordings_and_counts_are_bounded(
    recorders: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "KEPT", 2)
    monkeypatch.setattr(replays, "WATCHED", 3)
    work = Counted()
    double = Replays(work)
    shapes = [(1, 1, 1, width) for width in (1, 2, 3)]
    for shape in shapes:
        for _ in range(4):
            double(torch.ones(shape))
    assert [len(double._kept), len(recorders), work.passes] == [2, 3, 6]
    double(torch.ones(shapes[0]))  # was thrown out
    assert work.passes == 7
    for width in (4, 5, 6, 1, 4, 5, 6):  # four shapes in turn, of which three are counted
        double(torch.ones(1, 1, 1, width))
    assert len(recorders) == 3


def test_without_memory_for_a_recording_the_pass_goes_on(
    recorders: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: Replays[Any], _batch: Tensor) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Replays, "_record", full)
    work = Counted()
    double = Replays(work)
    for _ in range(6):
        assert double(torch.ones(1, 1, 1, 1)).twice.item() == 2
    assert work.passes == 6


@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("backbone", ["vgg16", "alexnet", "googlenet"])
def test_replayed_masks_are_those_of_a_pass(
    backbone: Any, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "KEPT", 3)
    network = random_network("fcn8s", backbone=backbone, dtype=torch.float32)
    classes = ClassList(names=tuple(f"class {index}" for index in range(network.spec.num_classes)))
    config = ModelConfig(spec=network.spec, classes=classes, normalization=TORCHVISION)
    segmenter = Segmenter(network, config, device="cuda", precision=precision)
    random = np.random.default_rng(0)
    sizes = [(96, 120), (33, 97), (200, 64), (50, 50)]
    images = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in 3 * sizes]
    monkeypatch.setattr(replays, "_waits", lambda _batch: False)
    wanted = [segmenter(image) for image in images]
    monkeypatch.undo()
    monkeypatch.setattr(replays, "KEPT", 3)
    with ThreadPoolExecutor(4) as threads:
        made = list(threads.map(segmenter, 6 * images))
    assert 0 < len(segmenter._replays._kept) <= 3
    for mask, expected in zip(made, 6 * wanted, strict=True):
        np.testing.assert_array_equal(mask, expected)
    with torch.no_grad():
        segmenter.network.get_parameter("score_fr.bias")[1] = torch.nan
    for image in images[-4:]:  # what a recording reads are the weights of now
        with pytest.raises(ValueError, match="not a number"):
            segmenter(image)
