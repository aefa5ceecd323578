"""Bulk segmentation with Ray Data: units in, one Parquet part per unit out.

The dataset's rows are references to units. A unit's records are fetched and decoded by CPU tasks,
segmented by an actor pool, encoded and committed by CPU tasks; receipts come back for progress.
Truth is the listing of the output: a unit is done if its part exists, and nothing else is believed.
"""

from __future__ import annotations

import json
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from ray.data import ActorPoolStrategy

from fcn_model import ClassList, ModelConfig
from pipelines import checkpoints, cluster, ray_data, storage
from pipelines.errors import ClusterError, IncompleteError, InputError, NotFoundError
from pipelines.masks import parts, plans
from pipelines.masks.generation import Generation, PartName, data_uri, part_name
from pipelines.segmentation.inference import Infer
from pipelines.segmentation.settings import SegmentConfig
from pipelines.segmentation.stages import Job, encode_and_commit, fetch_and_decode, new_row
from pipelines.sources import Source
from pipelines.units import Unit

Progress = Callable[[str], None]

ACTOR_RESTARTS = 3
"""Ray's default is to restart for ever, which a record that kills its worker would use up."""

SHOWN = 5
"""Names shown of a list of failed units."""


@dataclass
class SegmentResult:
    """What a run found and did. Counts are of the whole output, not of this run alone."""

    masks: str
    generation: str
    units: int
    already: int  # units that were done before this run
    records: int
    errors: int  # error rows written by this run
    seconds: float
    failed: dict[str, str] = field(default_factory=dict)  # unit -> why it has no part
    changed: list[str] = field(default_factory=list)  # units done with another version

    @property
    def complete(self) -> bool:
        """Whether every unit of the input has its part, made from the input as it is now."""
        return not self.failed and not self.changed


def segment(config: SegmentConfig, source: Source, *, progress: Progress) -> SegmentResult:
    """Segment every record of ``source``; what is done already is not done again.

    Needs a running Ray. Raises InputError, CheckpointError or ClusterError before any work, and
    IncompleteError after it if a unit has no part or a row count is wrong.
    """
    started = time.monotonic()
    output = storage.parse_uri(config.output)
    source.refuse_inside(output)
    cluster.refuse_lost_paths(output)
    if not source.units:
        raise InputError(f"{source.uri} holds no image")
    _, model = checkpoints.load(config.checkpoint)
    _check_fits(config, model, source)
    generation = Generation(
        model=model.digest,
        network=model.spec.name,
        precision=config.precision,
        max_pixels=config.max_pixels,
        task=config.task or "",
    )
    storage.create(
        storage.join(output, "_fcn", "gen", f"{generation.id}.json"), generation.to_json()
    )
    plan = plans.plan_units(source, output, generation, model.needs)
    folder = data_uri(output, generation)
    work = plans.sort_out(plan, source, versions_by_unit(list_parts(folder)))
    progress(
        f"{model.spec.name}, generation {generation.id}: {len(plan.units)} units, "
        f"{len(work.done)} done before, {len(work.todo)} to do"
    )
    receipts = []
    if work.todo:
        job = _job(config, output, generation, model)
        receipts = _run(job, work.todo, config.num_actors, progress)
    result = SegmentResult(
        masks=folder,
        generation=generation.id,
        units=len(plan.units),
        already=len(work.done),
        records=0,
        errors=sum(receipt["errors"] for receipt in receipts),
        seconds=0.0,
        changed=sorted(unit.identity for unit in work.changed),
    )
    _verify(result, work, receipts)
    result.seconds = round(time.monotonic() - started, 2)
    _write_run_record(config, output, result, receipts)
    if not result.complete:
        raise IncompleteError(_explain(result))
    return result


def _check_fits(config: SegmentConfig, model: ModelConfig, source: Source) -> None:
    """Raise InputError if the network has no such task or needs planes that the source lacks."""
    tasks = [task.name for task in model.spec.tasks]
    if config.task is not None and config.task not in tasks:
        raise InputError(
            f"task {config.task!r} is none of {model.spec.name}'s in {config.checkpoint}: "
            + (f"it has {tasks}" if tasks != [""] else "it has a single one; leave --task out")
        )
    missing = [name for name in model.needs if name not in source.planes]
    if missing:
        raise InputError(
            f"{model.spec.name} needs {missing[0]!r} for each image, which {source.uri} does not "
            f"have; it has images and {list(source.planes) or 'nothing else'}"
        )


def list_parts(folder: str) -> dict[PartName, str]:
    """The parts in a generation's folder, and their URIs."""
    found: dict[PartName, str] = {}
    try:
        refs = list(storage.list_objects(folder))
    except NotFoundError:  # nothing was written yet
        return found
    for ref in refs:
        name = PartName.parse(ref.uri.rsplit("/", 1)[1])
        if name is not None:
            found[name] = ref.uri
    return found


def versions_by_unit(names: Iterable[PartName]) -> dict[str, set[str]]:
    """By unit, the versions of which there are parts."""
    versions: dict[str, set[str]] = {}
    for name in names:
        versions.setdefault(name.unit, set()).add(name.version)
    return versions


def _job(config: SegmentConfig, output: str, generation: Generation, model: ModelConfig) -> Job:
    return Job(
        checkpoint=storage.parse_uri(config.checkpoint),
        output=output,
        generation=generation,
        classes=_classes(config, model),
        planes=model.needs,
        batch_pixels=config.batch_pixels,
        actors_per_node=cluster.actors_per_node(config.num_actors),
    )


def _classes(config: SegmentConfig, model: ModelConfig) -> ClassList:
    names = [task.name for task in model.spec.tasks]
    return model.class_lists[0 if config.task is None else names.index(config.task)]


def _run(
    job: Job, todo: Sequence[Unit], num_actors: int, progress: Progress
) -> list[dict[str, Any]]:
    """Push the units through the three stages and collect their receipts."""
    gpus = cluster.gpus()
    if 0 < gpus < num_actors:
        raise ClusterError(f"{num_actors} actors with a GPU each were asked for, there are {gpus}")
    cluster.require_cpus(num_actors + 1, "the network's actors and one task beside them")
    ray_data.context()
    dataset = ray_data.one_row_per_block([new_row(unit) for unit in todo])
    one_unit: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
    with warnings.catch_warnings():
        # The only way to make restarts finite; it goes away in Ray 2.64, which pyproject excludes.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        dataset = dataset.map_batches(
            fetch_and_decode, fn_kwargs={"job": job}, num_cpus=1, **one_unit
        )
        dataset = dataset.map_batches(
            Infer,
            fn_constructor_args=[job],
            num_cpus=1,
            num_gpus=1 if gpus else 0,
            compute=ActorPoolStrategy(
                size=num_actors, max_tasks_in_flight_per_actor=4, max_concurrent_calls_per_actor=2
            ),
            max_restarts=ACTOR_RESTARTS,
            max_task_retries=2,
            **one_unit,
        )
        dataset = dataset.map_batches(
            encode_and_commit, fn_kwargs={"job": job}, num_cpus=1, **one_unit
        )
        try:
            return list(_receipts(dataset, len(todo), progress))
        except ray_data.FAILURES as error:
            raise ClusterError(
                f"Ray could not go on: {ray_data.last_line(error)}. Finished units stay "
                f"in {data_uri(job.output, job.generation)}; run the same command again"
            ) from error


def _receipts(dataset: Any, units: int, progress: Progress) -> Iterator[dict[str, Any]]:
    """The receipts as they come; says how far the run is, at most every few seconds."""
    records = errors = failed = 0
    started = said = time.monotonic()
    batches = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    receipts = (json.loads(text) for batch in batches for text in batch["receipt"].to_pylist())
    for count, receipt in enumerate(receipts, start=1):
        records += receipt["records"]
        errors += receipt["errors"]
        failed += receipt["outcome"] == "failed"
        now = time.monotonic()
        if now - said > 2 or count == units:
            said, rate = now, records / (now - started)
            left = (units - count) * (now - started) / count
            progress(
                f"{count} of {units} units, {records} images, {rate:.1f} images/s, "
                f"{errors} error rows, {failed} failed units, about {left:.0f} s left"
            )
        yield receipt


def _verify(
    result: SegmentResult, work: plans.Worklist, receipts: Sequence[dict[str, Any]]
) -> None:
    """List again, and compare the parts and their row counts with what was planned."""
    found = list_parts(result.masks)
    versions = versions_by_unit(found)
    reasons = {receipt["input"]: receipt["failed"] for receipt in receipts}
    expected: dict[str, Unit] = {}  # part URI -> unit
    for unit in (*work.done, *work.todo, *work.changed):
        name = part_name(unit)
        have = versions.get(name.unit, set())
        if len(have) > 1:
            result.failed[unit.identity] = f"it has {len(have)} parts, of versions {sorted(have)}"
        elif have:
            expected[found[PartName(name.unit, *have)]] = unit
        else:
            result.failed[unit.identity] = reasons.get(unit.identity) or _why_missing(unit, work)
    result.changed = [name for name in result.changed if name not in result.failed]
    with ThreadPoolExecutor(16) as pool:
        described = pool.map(parts.describe, expected)
    for (uri, unit), (identity, count) in zip(expected.items(), described, strict=True):
        result.records += count
        # How many records a tar has is known only to who read it, and stands in the footer.
        records = (identity or {}).get("records") if unit.records is None else unit.records
        if records != count and unit.identity not in result.changed:
            result.failed[unit.identity] = f"{uri} has {count} rows for {records} records"


def _why_missing(unit: Unit, work: plans.Worklist) -> str:
    if unit in work.changed:
        return "its shard was uploaded anew when a part of it was done; use another --output"
    return "no part appeared, though its work was given out; do all nodes share the output's disk?"


def _explain(result: SegmentResult) -> str:
    lines = []
    if result.failed:
        shown = list(result.failed.items())[:SHOWN]
        lines.append(
            f"{len(result.failed)} of {result.units} units are not as they should be: "
            + "; ".join(f"{unit}: {why}" for unit, why in shown)
            + (" …" if len(result.failed) > SHOWN else "")
        )
    if result.changed:
        lines.append(
            f"{len(result.changed)} units changed since they were segmented, and keep their old "
            f"masks: {', '.join(result.changed[:SHOWN])}"
        )
    return ". ".join(lines) + f". What is finished stays in {result.masks}; run again to continue"


def _write_run_record(
    config: SegmentConfig,
    output: str,
    result: SegmentResult,
    receipts: Sequence[dict[str, Any]],
) -> None:
    seconds: dict[str, float] = {}
    for receipt in receipts:
        for stage, spent in receipt["seconds"].items():
            seconds[stage] = round(seconds.get(stage, 0.0) + spent, 3)
    record = {
        "config": asdict(config),
        "result": asdict(result),
        "stage_seconds": seconds,
        "versions": cluster.versions(),
    }
    name = f"{uuid.uuid4().hex}.json"
    storage.create(storage.join(output, "_fcn", "run", name), json.dumps(record, indent=1).encode())
