"""What becomes of images that have no mask, and of passes for which memory does not suffice."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcn_model import ClassList, ModelConfig, Segmenter, segmenter
from fcn_model.errors import FCNError
from fcn_model.normalize import Normalization
from fcn_model.outcomes import Exhausted, NonFiniteError, OutOfMemoryError, attempt
from fcn_model.tile_plans import tile_plan
from fcn_model.tiling import coarse_scores
from tests.support.networks import random_network

Image = NDArray[np.uint8]
BRIGHT = 3e38
"""Of a weight: finite, and its product with a pixel beyond 1 is not."""
PLAIN = Normalization(mean=(0, 0, 0), std=(1, 1, 1), scale=1.0, channel_order="rgb")
CPU_ERROR = (
    "[enforce fail at alloc_cpu.cpp:131] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 16000000000 bytes. Error code 12 (Cannot allocate memory)"
)
OUT_OF_MEMORY: list[Callable[[], Exception]] = [
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    MemoryError,
    lambda: RuntimeError(CPU_ERROR),
    lambda: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]


def narrow(**options: Any) -> Segmenter:
    """A network whose masks of noise hold several classes."""
    network = random_network("fcn8s", backbone="alexnet")
    with torch.no_grad():
        means = network(PLAIN(noise(64, 64))[None]).mean((0, 2, 3))
        network.get_parameter("score_fr.bias").sub_(means)
    classes = ClassList(names=tuple("abcde"))
    config = ModelConfig(spec=network.spec, classes=classes, normalization=PLAIN)
    return Segmenter(network, config, device="cpu", **options)


def noise(height: int, width: int, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def masks_of(outcomes: list[Any]) -> list[Image]:
    assert all(isinstance(outcome, np.ndarray) for outcome in outcomes), outcomes
    return outcomes


class Limited:
    """Stands in the way of passes: those of more than ``limit`` window pixels run out of memory."""

    def __init__(
        self, one: Segmenter, limit: int, patch: pytest.MonkeyPatch, error: Callable[[], Exception]
    ) -> None:
        self.limit, self.error = limit, error
        self.passes: list[tuple[int, bool]] = []
        coarse = one.network.coarse

        def limited_whole(images: Tensor, *others: Any, **more: Any) -> Tensor:
            count, _, height, width = images.shape
            self.check(count * (height + 200) * (width + 200))
            return coarse(images, *others, **more)

        def limited_window(network: Any, window: Tensor, *args: Any, **more: Any) -> Tensor:
            self.check(window.shape[2] * window.shape[3])
            return coarse_scores(network, window, *args, **more)

        patch.setattr(one.network, "coarse", limited_whole)
        patch.setattr(segmenter, "coarse_scores", limited_window)

    def check(self, pixels: int) -> None:
        fits = pixels <= self.limit
        self.passes.append((pixels, fits))
        if not fits:
            raise self.error()


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_a_batch_is_halved_until_it_fits_into_memory(
    error: Callable[[], Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, images = narrow(), [noise(20, 24, seed) for seed in range(5)]
    expected = masks_of(one.batch(images))
    limited = Limited(one, 2 * 220 * 224, monkeypatch, error)
    for mask, wanted in zip(masks_of(one.batch(images)), expected, strict=True):
        np.testing.assert_array_equal(mask, wanted)
    sizes = [(pixels // (220 * 224), fits) for pixels, fits in limited.passes]
    assert sizes == [(5, False), (2, True), (3, False), (1, True), (2, True)]


def test_an_image_is_cut_into_ever_smaller_tiles_until_they_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, image = narrow(), noise(301, 220)
    expected = one(image)
    assert len(np.unique(expected)) > 1
    smallest = np.prod(tile_plan(one.config.spec, (301, 220), 1).window)
    limited = Limited(one, int(smallest), monkeypatch, OUT_OF_MEMORY[2])
    np.testing.assert_array_equal(one(image), expected)
    failed = [pixels for pixels, fits in limited.passes if not fits]
    assert failed[0] == 501 * 420
    assert failed == sorted(failed, reverse=True)
    assert (
        sum(fits for _, fits in limited.passes) == tile_plan(one.config.spec, (301, 220), 1).count
    )


def test_an_image_that_never_fits_is_named_and_spoils_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, small = narrow(tile_pixels=20_000), noise(20, 24)
    expected = one(small)
    Limited(one, 220 * 224, monkeypatch, OUT_OF_MEMORY[0])
    large, mask = one.batch([noise(600, 411), small])
    np.testing.assert_array_equal(mask, expected)
    assert isinstance(large, OutOfMemoryError)
    assert isinstance(large, FCNError)
    assert str(pickle.loads(pickle.dumps(large))) == str(large)
    for words in ("600 x 411 pixels", "smallest tiles", "on cpu", "Tried to allocate 2.00 GiB"):
        assert words in str(large)
    with pytest.raises(MemoryError, match="600 x 411"):
        one(noise(600, 411))
    with pytest.raises(MemoryError, match="40 x 60"):  # too small for tiles
        one(noise(40, 60))


def test_other_errors_are_no_lack_of_memory() -> None:
    def wrong() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        attempt(wrong)


def test_the_tensors_of_a_failed_attempt_are_gone_when_the_next_begins() -> None:
    alive: list[int] = []

    class Counted:
        def __init__(self) -> None:
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    def work() -> None:
        kept = Counted()
        raise MemoryError(f"while {kept} is held")

    outcome = attempt(work)
    assert isinstance(outcome, Exhausted)
    assert alive == []


def overflowing(**options: Any) -> Segmenter:
    """Its scores are infinite or NaN around bright pixels, and finite in the dark."""
    one = narrow(**options)
    with torch.no_grad():
        one.network.get_parameter("conv1.weight").fill_(BRIGHT)
    return one


def test_scores_that_are_not_finite_spoil_their_own_image_only() -> None:
    one = overflowing()
    dark, light = np.zeros((40, 60, 3), np.uint8), np.full((40, 60, 3), 9, np.uint8)
    alone = one(dark)
    before, failed, after = one.batch([dark, light, dark])
    np.testing.assert_array_equal(before, alone)
    np.testing.assert_array_equal(after, alone)
    assert isinstance(failed, NonFiniteError)
    assert isinstance(failed, FCNError)
    assert str(pickle.loads(pickle.dumps(failed))) == str(failed)
    with pytest.raises(ValueError, match=r"of pixel \(0, 0\) .* not a number.*check the weights"):
        one(light)


def test_a_block_that_is_not_finite_is_found_where_it_lies() -> None:
    dark = np.zeros((20, 600, 3), np.uint8)
    plan = tile_plan(overflowing().config.spec, dark.shape[:2], 1)
    one = overflowing(tile_pixels=plan.pixels)
    assert plan.count > 5
    assert one(dark).shape == (20, 600)
    spot = dark.copy()
    spot[13, 560] = 9
    with pytest.raises(NonFiniteError) as caught:
        one(spot)
    found = re.search(r"pixel \((\d+), (\d+)\)", str(caught.value))
    assert found is not None
    row, column = map(int, found.groups())
    scores = overflowing().network(PLAIN(spot)[None])[0]
    assert not scores[:, row, column].isfinite().all()
    assert column > 200  # far from the image's corner, and named from there


LITTLE_MEMORY = """
import resource
from pathlib import Path

import numpy as np
import torch

from fcn_model import ClassList, ModelConfig, NetworkSpec, Segmenter, build
from fcn_model.normalize import TORCHVISION

torch.set_num_threads(1)
network = build(NetworkSpec(num_classes=2, head="fcn32s", width=1 / 16, fc_width=1))
with torch.no_grad():
    network.get_parameter("score_fr.bias").copy_(torch.tensor([0.0, 1.0]))
config = ModelConfig(
    spec=network.spec, classes=ClassList(names=("a", "b")), normalization=TORCHVISION
)
segment = Segmenter(network, config, device="cpu", tile_pixels=10**9)
image = np.zeros((4000, 1500, 3), np.uint8)
segment(image[:300, :300])
coarse = network.coarse


def told(*arguments, **more):
    try:
        return coarse(*arguments, **more)
    except RuntimeError as error:
        print("whole:", error)
        raise


network.coarse = told
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 150_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
mask = segment(image)
print("mask:", mask.shape, np.unique(mask))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_of_little_memory_segments_what_does_not_fit_into_it_whole() -> None:
    # In one pass two maps of 4 channels in float32 take 230 MB; the process may grow by 150 MB.
    run = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY], capture_output=True, text=True, check=True
    )
    assert "DefaultCPUAllocator: can't allocate memory" in run.stdout
    assert run.stdout.endswith("mask: (4000, 1500) [1]\n")
