"""How long the plan of a large archive takes, and how much memory.

    python -m benchmarks.plans --keys 1000000

The input is a listing made up in memory, so that no store is needed; the plans are stored in a
temporary folder. Each line is a night of its own in a process of its own: it plans, and sorts the
plan by what has parts. Listing the store and the parts is not in the times, the listed objects are
in the memory.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tyro

from pipelines.masks.generation import Generation, PartName, part_name
from pipelines.masks.plans import load_plan, plan_units
from pipelines.masks.sorting import Again, Found, sort_out
from pipelines.sources import Source
from pipelines.storage import ObjectRef
from pipelines.units import Unit

GENERATION = Generation(model="m", network="n", precision="fp32", max_pixels=1)
ROOT = "s3://archive/photographs"


@dataclass(frozen=True, kw_only=True)
class Options:
    """The archive."""

    keys: int = 1_000_000
    """Images in the first night."""
    unit_records: int = 256
    """Images in a unit."""


@dataclass(frozen=True)
class Night:
    """What the input is like in one night; every hundredth image is the share of one percent."""

    name: str
    new: bool = False
    changed: bool = False
    deleted: bool = False
    first: bool = False


NIGHTS = (
    Night("first plan", first=True),
    Night("nothing new"),
    Night("1 % new", new=True),
    Night("1 % new, 1 % changed, 1 % deleted", new=True, changed=True, deleted=True),
)


def main() -> None:
    """Print the table."""
    from benchmarks import machine  # noqa: PLC0415  (torch, which would be in each night's memory)

    options = tyro.cli(Options, description=__doc__)
    print(machine.describe("pyarrow"))
    print(f"{options.keys:,} images, {options.unit_records} in a unit\n")
    heads = ("plan s", "sort s", "CPU s", "plans MB", "listed MB", "peak MB")
    print(f"{'night':36}" + "".join(f"{head:>10}" for head in heads))
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for night in NIGHTS:
            with ProcessPoolExecutor(1, mp_context=context) as pool:
                print(pool.submit(measure, night, options, folder).result(), flush=True)


def measure(night: Night, options: Options, folder: str) -> str:
    """A line of the table, from a process that does nothing else."""
    output = Path(folder).as_uri()
    parts = [] if night.first else done(output)
    source = archive(night, options)
    listed = peak()
    started, cpu = time.perf_counter(), time.process_time()
    plan = plan_units(source, output, GENERATION, unit_records=options.unit_records)
    planned = time.perf_counter()
    work = sort_out(plan, source, Found(parts=parts, rows=lambda _: []), Again(changed=True))
    sorted_out = time.perf_counter()
    cpu, most = time.process_time() - cpu, peak()
    assert work.units == len(plan.units)
    assert len(work.done) + len(work.todo) == len(plan.units)
    assert bool(work.todo) == (night.name != "nothing new")
    stored = sum(path.stat().st_size for path in Path(folder).rglob("*.plan")) / 1e6
    return (
        f"{night.name:36}{planned - started:10.1f}{sorted_out - planned:10.1f}{cpu:10.1f}"
        f"{stored:10.1f}{listed:10.0f}{most:10.0f}"
    )


def done(output: str) -> list[PartName]:
    """The parts of all that was planned; in a child, so that it costs this process no memory."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(planned_parts, output).result()


def planned_parts(output: str) -> list[PartName]:
    """The part of each planned unit."""
    return [part_name(unit) for unit in load_plan(output, GENERATION.id).units]


def archive(night: Night, options: Options) -> Source:
    """The listing of an archive on S3, with keys and ETags of the usual lengths."""
    objects = list(listed_objects(night, options.keys))
    refs = tuple(ref for _, ref in objects)
    unit = Unit("raw", refs, keys=tuple(key for key, _ in objects))
    return Source(ROOT, "archive", None, (unit,))


def listed_objects(night: Night, keys: int) -> Iterator[tuple[str, ObjectRef]]:
    """Keys and objects in the order of the listing; new ones fall between the old ones."""
    for number in range(keys):
        key = f"camera-{number // 10_000:03d}/2026-01/image-{number:09d}.jpg"
        if not (night.deleted and number % 100 == 17):
            yield key, stored(key, version=int(night.changed and number % 100 == 50))
        if night.new and number % 100 == 0:
            key = key.replace(".jpg", "-new.jpg")
            yield key, stored(key, version=0)


def stored(key: str, version: int) -> ObjectRef:
    """An object of a made-up size and MD5."""
    etag = hashlib.md5(f"{key} {version}".encode(), usedforsecurity=False).hexdigest()
    return ObjectRef(f"{ROOT}/{key}", etag, 100_000 + int(etag[:5], 16))


def peak() -> float:
    """The most memory that this process had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
