"""Working off a list of units, whatever happens to the workers: waves, repeats and isolation.

What the pipeline leaves without a receipt has lost its worker. Most of it was bystanders of a kill
and succeeds when it is done again; what does not is done alone, record by record, so that the one
record that kills workers becomes an error row and the rest of its unit is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from pipelines import cluster, ray_data
from pipelines.errors import ClusterError
from pipelines.segmentation import pipeline
from pipelines.segmentation.isolation import Limits, segment_alone
from pipelines.segmentation.progress import Progress, Say
from pipelines.segmentation.stages import Job, part_of
from pipelines.segmentation.unit_row import UnitRow

WAVE = 4000
"""Units that Ray gets at a time: its driver keeps something for each until the end."""

FEW = 64
"""Units that are done alone at most. More lost ones mean a broken cluster, not broken images."""

ALONE_RETRIES = 2
"""How often a unit that is done alone goes to another worker when one is killed."""

Receipt = dict[str, Any]
"""What became of a unit: its ``part``, an ``outcome``, ``stats``, ``seconds``; or why it failed."""


def work_off(
    job: Job, rows: Sequence[UnitRow], *, actors: int, limits: Limits, say: Say
) -> Iterator[Receipt]:
    """One receipt for every unit. Raises ClusterError if Ray cannot work at all."""
    progress = Progress(len(rows), say)
    later: dict[str, UnitRow] = {}
    for start in range(0, len(rows), WAVE):
        wave = {part_of(row).file: row for row in rows[start : start + WAVE]}
        for receipt in _wave(job, wave, actors, limits, say):
            if receipt["transient"]:
                part = receipt["part"]
                later[part] = replace(wave[part], last_try=True)
                continue
            progress.add(receipt)
            yield receipt
    if later:
        say(f"{len(later)} units met a failing store; they are tried once more")
        for receipt in _wave(job, later, actors, limits, say):
            progress.add(receipt)
            yield receipt


def _wave(
    job: Job, wave: Mapping[str, UnitRow], actors: int, limits: Limits, say: Say
) -> Iterator[Receipt]:
    left = dict(wave)
    for _ in range(2):  # the second time for bystanders
        yield from _until_stuck(job, left, actors, say)
        if not left:
            return
        say(f"{len(left)} units lost their workers and are done again")
    if len(left) > FEW:
        raise ClusterError(
            f"{len(left)} units lost their workers twice, such as {next(iter(left))}; that many "
            "point to the machines: memory, GPU or installation. Ray's logs say more"
        )
    for part, row in left.items():
        say(f"doing {row.planned.identity} alone: its workers died twice")
        yield _alone(job, part, row, limits)


def _until_stuck(job: Job, left: dict[str, UnitRow], actors: int, say: Say) -> Iterator[Receipt]:
    """Receipts of one pass, taken out of ``left``.

    A pipeline that broke but did some work is started again with what it left; one that did
    nothing raises its ClusterError.
    """
    while left:
        before = len(left)
        try:
            for receipt in pipeline.run(job, list(left.values()), actors):
                if left.pop(receipt["part"], None) is not None:
                    yield receipt
        except ClusterError as error:
            if len(left) == before and before > FEW:
                raise
            say(f"{error}; {before - len(left)} units were done, {len(left)} are left")
            if len(left) == before:
                return
        else:
            return


def _alone(job: Job, part: str, row: UnitRow, limits: Limits) -> Receipt:
    task = ray.remote(segment_alone).options(
        num_cpus=1, num_gpus=1 if cluster.gpus() else 0, max_retries=ALONE_RETRIES
    )
    try:
        receipt: Receipt = ray.get(task.remote(row, job, limits))
    except RayError as error:
        why = f"done alone, it still lost its worker: {ray_data.last_line(error)}"
        return {
            "part": part,
            "input": row.planned.identity,
            "outcome": "failed",
            "failed": why,
            "transient": False,
            "bytes": 0,
            "seconds": {},
        }
    return receipt
