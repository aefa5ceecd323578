"""Images that cost what photographs cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.support import made

DIFFERENT = 16
"""Photographs of an archive; the others are the same again."""


def photo(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: blocks with noise, as JPEG 70 kB of 480x360.

    PASCAL VOC's have 84 kB at 500x375, where these would have 76.
    """
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (-(-height // 20), -(-width // 20), 3))
    smooth = np.kron(coarse, np.ones((20, 20, 1)))[:height, :width]
    return (smooth + random.normal(0, 32, smooth.shape)).clip(0, 255).astype(np.uint8)


def files(folder: Path, height: int, width: int) -> list[Path]:
    """So many `DIFFERENT` photographs as JPEG files in a folder."""
    found = []
    for seed in range(DIFFERENT):
        found.append(folder / f"{seed:02}.jpg")
        found[-1].write_bytes(made.jpg(photo(seed, height, width)))
    return found


def archive(originals: Sequence[Path], folder: Path, count: int) -> Path:
    """A new folder of ``count`` files: the originals again and again, as links."""
    folder.mkdir()
    for index in range(count):
        (folder / f"{index:07}.jpg").hardlink_to(originals[index % len(originals)])
    return folder
