"""Lanes: batches side by side, each with its share of the threads, within the budget of memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from fcn_model import NonFiniteError, Segmenter
from fcn_model.lanes import Lanes
from tests.fcn_model.test_segmenter import SIZES, config_of, images_of
from tests.support.networks import random_network

THREADS = 6


@pytest.fixture(autouse=True)
def _six_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


def segmenter(**options: Any) -> Segmenter:
    network = random_network()
    return Segmenter(network, config_of(network), device="cpu", **options)


class Passes:
    """What ran through the network, and how much of it at a time."""

    def __init__(self, one: Segmenter, patch: pytest.MonkeyPatch, together: int = 1) -> None:
        self.shapes: list[tuple[int, int, int]] = []
        self.threads: list[int] = []
        self.most_pixels = 0
        self._pixels = 0
        self._lock = threading.Lock()
        self._all_there = threading.Barrier(together, timeout=20)
        self._coarse = one.network.coarse
        patch.setattr(one.network, "coarse", self._run)

    def _run(self, images: torch.Tensor, *others: Any, **more: Any) -> torch.Tensor:
        count, _, height, width = images.shape
        pixels = count * (height + 198) * (width + 198)
        with self._lock:
            self.shapes.append((count, height, width))
            self.threads.append(torch.get_num_threads())
        with self._counted(pixels):
            self._all_there.wait()
            time.sleep(0.01)
            return self._coarse(images, *others, **more)

    @contextmanager
    def _counted(self, pixels: int) -> Iterator[None]:
        with self._lock:
            self._pixels += pixels
            self.most_pixels = max(self.most_pixels, self._pixels)
        yield
        with self._lock:
            self._pixels -= pixels


@pytest.mark.parametrize("lanes", [2, 3])
@pytest.mark.parametrize("tile_pixels", [4_000_000, 100_000])
def test_masks_are_those_of_one_batch_after_another(lanes: int, tile_pixels: int) -> None:
    images = images_of([*SIZES, (300, 300), *SIZES])
    budget = {"batch_pixels": 150_000, "tile_pixels": tile_pixels}
    expected = segmenter(**budget).batch(images)
    masks = segmenter(**budget, lanes=lanes).batch(images)
    assert len({int(mask.max()) for mask in expected}) > 1  # type: ignore[union-attr]
    for mask, wanted in zip(masks, expected, strict=True):
        np.testing.assert_array_equal(mask, wanted)


def test_batches_run_side_by_side_with_a_share_of_the_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = segmenter(batch_pixels=2 * 262**2, tile_pixels=4 * 262**2, lanes=2)
    passes = Passes(one, monkeypatch, together=2)  # each waits for another
    one.batch(images_of([(64, 64)] * 7))
    assert sorted(passes.shapes) == [(1, 64, 64), (2, 64, 64), (2, 64, 64), (2, 64, 64)]
    assert passes.threads == [THREADS // 2] * 4


def test_what_runs_at_a_time_keeps_to_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = 8 * 262**2
    one = segmenter(batch_pixels=262**2, tile_pixels=budget, lanes=2)
    passes = Passes(one, monkeypatch)
    sizes = [(64, 64), (400, 400), (64, 64), (500, 500), (64, 64), (300, 300), (64, 64)]
    one.batch(images_of(sizes))
    assert sorted(passes.shapes) == sorted((1, *size) for size in sizes)
    assert passes.most_pixels <= budget
    # The two that leave no room for another have all threads.
    by_shape = dict(zip(passes.shapes, passes.threads, strict=True))
    assert by_shape[1, 400, 400] == by_shape[1, 500, 500] == THREADS
    assert by_shape[1, 300, 300] == by_shape[1, 64, 64] == THREADS // 2


def test_a_single_image_has_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    one = segmenter(lanes=2)
    passes = Passes(one, monkeypatch)
    one(images_of([(40, 33)])[0])
    assert passes.threads == [THREADS]


def test_even_parts_are_in_order_and_as_many_for_each_lane() -> None:
    for lanes in range(1, 5):
        for count in range(1, 30):
            for most in range(1, 8):
                parts = Lanes(lanes).even(range(count), most)
                assert [index for part in parts for index in part] == list(range(count))
                assert 1 <= min(map(len, parts)) <= max(map(len, parts)) <= most
                assert max(map(len, parts)) - min(map(len, parts)) <= 1
                assert len(parts) % lanes == 0 or len(parts) == count


def test_an_error_of_one_image_is_its_own_and_any_other_is_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, images = segmenter(batch_pixels=1, lanes=2), images_of([(40, 33)] * 4)
    coarse, calls = one.network.coarse, iter(range(100))
    broken = ZeroDivisionError("of the third pass")

    def failing(images: torch.Tensor, *others: Any, **more: Any) -> torch.Tensor:
        scores = coarse(images, *others, **more)
        number = next(calls)
        if number == 6:
            raise broken
        return scores * float("nan") if number == 2 else scores

    monkeypatch.setattr(one.network, "coarse", failing)
    outcomes = one.batch(images)
    assert sum(isinstance(outcome, NonFiniteError) for outcome in outcomes) == 1
    with pytest.raises(ZeroDivisionError) as raised:
        one.batch(images)
    assert raised.value is broken


def test_threads_that_begin_later_have_as_many_of_torch_as_before():
    """What one thread sets is kept by torch for all that compute for the first time after it."""

    def of_a_new_thread() -> int:
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        return found[0]

    lanes = Lanes(3)
    assert lanes.each(lambda _: torch.get_num_threads(), range(6)) == [THREADS // 3] * 6
    assert of_a_new_thread() == THREADS
    assert lanes.alone(lambda _: torch.get_num_threads(), [1]) == [THREADS]
    assert of_a_new_thread() == THREADS
    assert lanes.each(lambda _: torch.get_num_threads(), range(6)) == [THREADS // 3] * 6
