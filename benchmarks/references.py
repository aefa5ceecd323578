"""What the segment job is measured against, in one process: prints rates, in images per second.

The bare forward: pixels in memory through the segmenter, one batch after another, and as the job
does it, several at a time. And a loop that decodes, segments, as the job does it, and encodes one
unit after another. Run by `benchmarks.throughput`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fcn_model import Segmenter, checkpoint
from pipelines import images
from pipelines.segmentation.inference import LANES
from pipelines.segmentation.settings import SegmentConfig

SECONDS = 3.0


def main() -> None:
    """Time both on the pictures and the checkpoint in a folder."""
    folder, unit, precision = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    encoded = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
    one_by_one, segment = (
        a_segmenter(folder / "checkpoint", precision, lanes)  # type: ignore[arg-type]
        for lanes in (1, LANES)
    )
    encoded *= -(-unit // len(encoded))
    pixels = [decoded(data) for data in encoded]

    def all_of_it(batch: Sequence[bytes]) -> None:
        for mask in segment.batch([decoded(data) for data in batch]):
            assert isinstance(mask, np.ndarray)
            images.encode_mask(mask, segment.config.classes)

    print(
        rate(one_by_one.batch, pixels, unit),
        rate(segment.batch, pixels, unit),
        rate(all_of_it, encoded, unit),
    )


def a_segmenter(directory: Path, precision: Literal["fp32", "bf16"], lanes: int) -> Segmenter:
    """As the job makes it."""
    settings = SegmentConfig(checkpoint="", output="")
    network, config = checkpoint.load(directory)
    return Segmenter(
        network,
        config,
        precision=precision,
        batch_pixels=settings.batch_pixels,
        tile_pixels=settings.tile_pixels,
        lanes=lanes,
    )


def decoded(data: bytes) -> Any:
    """Pixels of a JPEG."""
    return images.decode_image(data, max_pixels=10**9)


def rate(work: Callable[[Any], object], items: Sequence[Any], unit: int) -> float:
    """Items per second after a first unit, for some seconds and at least once through all."""
    work(items[:unit])
    started, done = time.perf_counter(), 0
    while done < len(items) or time.perf_counter() - started < SECONDS:
        first = done % len(items)
        batch = items[first : first + unit]
        work(batch)
        done += len(batch)
    return done / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
