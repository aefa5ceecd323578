"""How good a mask can be that has one label for every f×f pixels: the paper's appendix A.

    python -m benchmarks.upper_bounds --data VOC_FOLDER

The truth is made smaller by f and larger again, and scored against itself without void pixels. The
paper does not say how either was done, nor on which part of VOC 2011 val, so the table has the
defensible ways beside its figures. VOC's void border is five pixels wide: left out of the score, it
hides most of what a small f does wrong, and how the smaller truth treats it matters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image

from benchmarks import machine
from fcn_model import Confusion
from pipelines.datasets.voc import CLASSES, LISTS

PAPER = {128: 50.9, 64: 73.3, 32: 86.1, 16: 92.8, 8: 96.4, 4: 98.5}
"""Factor → mean IU in percent, on a subset of VOC 2011 val."""

Matrix = NDArray[np.float32]
Ids = NDArray[np.integer]
Axis = Callable[[int, int], Matrix]


@dataclass(frozen=True)
class Way:
    """One way to resample: matrices for an axis, and what is done in between.

    With ``majority`` a cell has the one class that most of it has, else the share of each.
    With ``void`` void is one more class of the smaller truth, else no part of it.
    """

    name: str
    down: Axis
    up: Axis
    majority: bool = False
    void: bool = False


@dataclass(frozen=True, kw_only=True)
class Options:
    """The paper's upper bounds on the masks of a folder."""

    data: Path
    """Folder in the layout of PASCAL VOC (ImageSets/Segmentation, SegmentationClass)."""
    split: str = "val"
    """Which list."""


def main() -> None:
    """Print the table."""
    options = tyro.cli(Options, description=__doc__)
    names = (options.data / LISTS / f"{options.split}.txt").read_text().split()
    files = [options.data / "SegmentationClass" / f"{name}.png" for name in names]
    scores = measure(np.asarray(Image.open(file)) for file in files)
    print(machine.describe("numpy", "pillow"))
    print(f"mean IU in percent, {len(files)} masks of {options.split} in {options.data.name}\n")
    print(_row("way", [str(factor) for factor in PAPER], "distance"))
    print(_row("the paper", [f"{value:.1f}" for value in PAPER.values()], ""))
    distances = {way: _distance(values) for way, values in scores.items()}
    for way, values in scores.items():
        mark = " ← nearest" if distances[way] == min(distances.values()) else ""
        texts = [f"{value:.1f}" for value in values.values()]
        print(_row(way, texts, f"{distances[way]:.1f}{mark}"))


def measure(labels: Iterable[Ids]) -> dict[str, dict[int, float]]:
    """Mean IU in percent by the name of the way and the factor, over all (H, W) ``labels``."""
    counts = {(way, factor): Confusion(len(CLASSES) + 1) for way in WAYS for factor in PAPER}
    for label in labels:
        for (way, factor), confusion in counts.items():
            confusion.update(label, resampled(label, factor, way), CLASSES.void_id)
    return {way.name: {factor: _mean_iu(counts[way, factor]) for factor in PAPER} for way in WAYS}


def resampled(label: Ids, factor: int, way: Way) -> NDArray[np.int64]:
    """(H, W) ids made smaller by ``factor`` and larger again; void is written as K.

    Cells are counted from the top left; the last ones may be cut by the border. A cell in which
    nothing counts has no class, and becomes the lowest id of the image.
    """
    void = len(CLASSES)
    ids = np.where(label == CLASSES.void_id, void, label).astype(np.int64)
    present = np.unique(ids)
    if not way.void and len(present) > 1:
        present = present[present != void]
    # Classes that the image has not cannot win: leave them out of the arithmetic.
    truth_Khw = (ids == present[:, None, None]).astype(np.float32)
    height, width = label.shape
    small_Khw = way.down(height, factor) @ truth_Khw @ way.down(width, factor).T
    if way.majority:
        small_Khw = (np.arange(len(present))[:, None, None] == small_Khw.argmax(0)) * np.float32(1)
    else:
        small_Khw /= np.maximum(small_Khw.sum(0), np.float32(1e-6))
    scores_KHW = way.up(height, factor) @ small_Khw @ way.up(width, factor).T
    return present[scores_KHW.argmax(0)]


def block_sums(size: int, factor: int) -> Matrix:
    """(cells, size): the sum over each cell."""
    cells = -(-size // factor)
    return (np.arange(cells)[:, None] == np.arange(size) // factor).astype(np.float32)


def block_centres(size: int, factor: int) -> Matrix:
    """(cells, size): the pixel right of each cell's centre, or the image's last one."""
    centres = np.minimum(np.arange(-(-size // factor)) * factor + factor // 2, size - 1)
    return (centres[:, None] == np.arange(size)).astype(np.float32)


def repeat(size: int, factor: int) -> Matrix:
    """(size, cells): each pixel has its cell's value."""
    return block_sums(size, factor).T


def interpolate(size: int, factor: int) -> Matrix:
    """(size, cells): each pixel lies linearly between the centres of the two nearest cells.

    Inside, these are the weights of the bilinear kernel of size 2f; beyond the outermost centres
    the outermost cell holds.
    """
    cells = -(-size // factor)
    place = np.clip((np.arange(size) - (factor - 1) / 2) / factor, 0, cells - 1)
    return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(cells))).astype(np.float32)


WAYS = (
    Way("majority, bilinear", block_sums, interpolate, majority=True),
    Way("majority, bilinear, void a class", block_sums, interpolate, majority=True, void=True),
    Way("majority, nearest", block_sums, repeat, majority=True),
    Way("shares, bilinear", block_sums, interpolate),
    Way("centre pixel, bilinear", block_centres, interpolate),
    Way("centre pixel, nearest", block_centres, repeat),
)


def _mean_iu(confusion: Confusion) -> float:
    """In percent, over the classes without void, which the truth never has."""
    ius = confusion.iu()[: len(CLASSES)]
    return 100 * float(np.nanmean(ius))


def _distance(values: dict[int, float]) -> float:
    """The mean distance to the paper's figures, in points."""
    return float(np.mean([abs(values[factor] - paper) for factor, paper in PAPER.items()]))


def _row(name: str, values: list[str], end: str) -> str:
    return f"{name:34}" + "".join(f"{value:>7}" for value in values) + f"   {end}"


if __name__ == "__main__":
    main()
