"""How fast a cluster segments, from a few real records that one of its workers takes all the way.

The worker does what the stages of a run do, with their code: fetch and decode, the network, encode.
Nothing is written.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray
import torch
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from fcn_model.errors import FCNError
from pipelines import cluster, ray_data
from pipelines.errors import ClusterError
from pipelines.segmentation import sampling, stages
from pipelines.segmentation.inference import Infer
from pipelines.segmentation.stages import Job
from pipelines.segmentation.unit_row import Item, UnitRow
from pipelines.units import Unit

SECONDS = 8.0
"""How long the network may work for the measurement, about; its first image may take longer."""

PATIENCE_SECONDS = 90.0
"""How long the cluster may take for all of it, with the start of a worker that loads torch."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a few images took. The seconds of the stages are per image, ``start`` is of a worker."""

    images: int
    errors: int
    """Records that became error rows; they are not among the images."""
    pixels: int
    """Of all images together."""
    start: float
    decode: float
    """With fetching."""
    network: float
    encode: float
    mask_bytes: float
    """Of an encoded mask, on average."""
    device: str
    threads: int
    """Of the network, on a CPU."""
    peak_bytes: int
    """Memory of the worker that did all of it, at its highest."""

    def rate(self, actors: int, cores: int) -> float:
        """Images per second of a run with ``actors`` actors in a cluster of ``cores`` CPU cores.

        With GPUs either they or the CPUs that decode and encode set the pace. Without, both share
        the cores, of which an actor has ``threads``.
        """
        beside = self.decode + self.encode
        if self.device == "cpu":
            return actors / max(self.network + beside / self.threads, 1e-9)
        tasks = max(1, cores - actors)
        return min(actors / max(self.network, 1e-9), tasks / max(beside, 1e-9))


def on_cluster(job: Job, units: Sequence[Unit]) -> Calibration | None:
    """Let a worker with the resources of an actor measure the records of ``units``.

    None if all of them are error rows. Raises ClusterError if the worker dies of them, or the
    cluster has no place for it in time; and what the worker raises if a store refuses it, or if
    ``units`` are shards of which none can be read (`sampling.read_each`).
    """
    task = ray.remote(measure).options(
        num_cpus=1, num_gpus=1 if cluster.gpus() else 0, max_retries=0
    )
    running = task.remote(job, [unit.to_json() for unit in units])
    try:
        return ray.get(running, timeout=PATIENCE_SECONDS)
    except GetTimeoutError as error:
        ray.cancel(running, force=True)
        raise ClusterError(
            f"no worker was through within {PATIENCE_SECONDS:.0f} s; is the cluster busy?"
        ) from error
    except RayTaskError as error:
        if isinstance(error.cause, FCNError):
            raise error.cause from error
        raise ClusterError(f"the worker failed: {ray_data.last_line(error)}") from error
    except RayError as error:
        raise ClusterError(f"the worker died: {ray_data.last_line(error)}") from error


def measure(job: Job, units: Sequence[str]) -> Calibration | None:
    """Take the records of units, as JSON, through all stages in this process."""
    started = time.monotonic()
    infer = Infer(job)
    start = time.monotonic() - started
    started = time.monotonic()
    items = _items(units, job)
    decode = time.monotonic() - started
    ready = [item for item in items if item.form == "rgb"]
    if not ready:
        return None
    masks, network = _segmented(infer, ready)
    started = time.monotonic()
    made = [stages.encoded(item, job.classes) if item.form == "mask" else item for item in masks]
    encode = time.monotonic() - started
    pngs = [item for item in made if item.form == "png"]
    if not pngs:
        return None
    return Calibration(
        images=len(pngs),
        errors=len(items) - len(ready) + len(made) - len(pngs),
        pixels=sum(item.height * item.width for item in pngs),
        start=start,
        decode=decode / len(items),
        network=network,
        encode=encode / len(made),
        mask_bytes=sum(len(item.data) for item in pngs) / len(pngs),
        device="cuda" if torch.cuda.is_available() else "cpu",
        threads=torch.get_num_threads(),
        peak_bytes=_peak_bytes(),
    )


def _items(units: Sequence[str], job: Job) -> list[Item]:
    """The records of units, as far as these can be read. Raises the last error if none can."""
    items: list[Item] = []
    trouble: FCNError | None = None
    for found in sampling.read_each(map(Unit.from_json, units), partial(_decoded, job=job)):
        if isinstance(found, FCNError):
            trouble = found
        else:
            items += found
    if trouble and not items:
        raise trouble
    return items


def _decoded(unit: Unit, job: Job) -> list[Item]:
    row = UnitRow(unit.to_json())
    read = stages.read_items(row, job)
    return [stages.decoded(item, job) if item.form == "encoded" else item for item in read]


def _segmented(infer: Infer, items: Sequence[Item]) -> tuple[list[Item], float]:
    """Items with masks, and the network's seconds per image.

    The first image runs alone: it warms up, and tells how many more there is time for. Those are
    one unit, as in a run.
    """
    started = time.monotonic()
    first = _through(infer, items[:1])
    alone = time.monotonic() - started
    more = items[1 : 1 + int(SECONDS / max(alone, 1e-3))]
    if not more or alone > SECONDS / 2:
        return first, alone
    started = time.monotonic()
    rest = _through(infer, more)
    return first + rest, (time.monotonic() - started) / len(more)


def _through(infer: Infer, items: Sequence[Item]) -> list[Item]:
    row = UnitRow.from_table(infer(UnitRow("", items=list(items)).to_table()))
    if row.failed:
        raise RuntimeError(f"the network cannot segment: {row.failed}")
    return row.items


def _peak_bytes() -> int:
    peak: Any = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) * (1 if sys.platform == "darwin" else 1024)
