"""Bulk segmentation: one run over everything that has no masks yet, and what it leaves behind.

Truth is the listing of the output: a unit is done if its part exists, and nothing else is believed.
A run plans, works off what is missing, lists again, adds the new parts to a snapshot, and publishes
that if the quality gate lets it. Any step may be cut off anywhere; the same command goes on.
"""

from __future__ import annotations

import time

from pipelines import storage
from pipelines.errors import IncompleteError, NotPublishedError
from pipelines.masks import snapshots
from pipelines.masks.worklist import Worklist
from pipelines.segmentation import preflight, run_record
from pipelines.segmentation.isolation import Limits
from pipelines.segmentation.moments import Moments
from pipelines.segmentation.opening import Night, open_night, plan_work
from pipelines.segmentation.preflight import Ready
from pipelines.segmentation.progress import Say
from pipelines.segmentation.result import SegmentResult
from pipelines.segmentation.settings import SegmentConfig
from pipelines.segmentation.settling import Standing, publish, settle
from pipelines.segmentation.shift import Receipt, work_off
from pipelines.segmentation.unit_row import UnitRow
from pipelines.sources import Source


def segment(
    config: SegmentConfig,
    source: Source,
    *,
    progress: Say,
    ready: Ready | None = None,
    moments: Moments | None = None,
) -> SegmentResult:
    """Segment every record of ``source``; what is done already is not done again.

    Needs a running Ray. ``ready`` is the preflight's result where that was made before, ``moments``
    are those of the run until now. Raises InputError, CheckpointError, StoreError or ClusterError
    before any work; after it NotPublishedError if the quality gate failed, and IncompleteError if a
    unit has no part, or an old one. What was finished stays in every case.
    """
    started = time.monotonic()
    moments = moments or Moments()
    night = open_night(config, source, ready or preflight.check(config, source))
    storage.create(
        storage.join(night.output, "_fcn", "gen", f"{night.generation.id}.json"),
        night.generation.to_json(),
    )
    before = snapshots.latest(night.output, night.generation.id)
    plan, work = plan_work(night, before)
    progress(_opening(night, work))
    moments.mark("planned")
    receipts = _work_off(night, work, progress, moments)
    moments.mark("worked off")
    standing = Standing(night, before, receipts)
    result = settle(night, plan, work, standing, receipts)
    if not result.faults:
        publish(night, plan, work, standing, result)
    result.seconds = round(time.monotonic() - started, 2)
    moments.mark("settled")
    run_record.write(night, result, receipts, moments)
    if result.faults:
        raise NotPublishedError(result.explain_faults())
    if not result.complete:
        raise IncompleteError(result.explain())
    return result


def _opening(night: Night, work: Worklist) -> str:
    todo = len(work.todo) + len(work.retry)
    others = [
        f"{count} {what}"
        for count, what in (
            (len(work.changed), "changed since"),
            (len(work.parked), "parked"),
            (len(work.vanished), "deleted before they were done"),
        )
        if count
    ]
    return (
        f"{night.model.spec.name}, generation {night.generation.id}: {work.units} units, "
        f"{len(work.done)} done before, {todo} to do" + "".join(f", {other}" for other in others)
    )


def _work_off(night: Night, work: Worklist, progress: Say, moments: Moments) -> list[Receipt]:
    config = night.config
    tasks = [*work.todo, *work.retry]
    if not tasks:
        return []
    preflight.check_cluster(config)
    preflight.check_space(night.output, [task.unit for task in tasks])
    limits = Limits(record_seconds=config.record_seconds, record_bytes=config.record_bytes)
    rows = [
        UnitRow(task.unit.to_json(), retry=task.name.retry, was=task.was.file if task.was else "")
        for task in tasks
    ]
    receipts = []
    for receipt in work_off(night.job, rows, actors=config.num_actors, limits=limits, say=progress):
        moments.mark("first part")
        receipts.append(receipt)
    return receipts
