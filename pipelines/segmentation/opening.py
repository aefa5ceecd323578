"""A run of bulk segmentation before its work: what it is about, checked, and what is to do."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from functools import partial

from fcn_model import ClassList, ModelConfig
from pipelines import cluster, storage
from pipelines.masks import carry, head, parked, plans
from pipelines.masks.generation import Generation, data_uri
from pipelines.masks.parts import list_parts
from pipelines.masks.plans import Plan
from pipelines.masks.snapshot import Snapshot
from pipelines.masks.sorting import Again, Found, sort_out
from pipelines.masks.worklist import Worklist
from pipelines.segmentation.preflight import Ready
from pipelines.segmentation.settings import SegmentConfig
from pipelines.segmentation.stages import Job
from pipelines.sources import Source


@dataclass(frozen=True)
class Night:
    """A run, opened: what it is about."""

    config: SegmentConfig
    source: Source
    output: str
    model: ModelConfig
    generation: Generation
    run: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def folder(self) -> str:
        """Where the parts go."""
        return data_uri(self.output, self.generation)

    @property
    def classes(self) -> ClassList:
        """Those of the task."""
        names = [task.name for task in self.model.spec.tasks]
        task = self.config.task
        return self.model.class_lists[0 if task is None else names.index(task)]

    @property
    def job(self) -> Job:
        """What the stages must know. Needs a running Ray, which says how many share a machine."""
        config = self.config
        return Job(
            checkpoint=storage.parse_uri(config.checkpoint),
            output=self.output,
            generation=self.generation,
            classes=self.classes,
            planes=self.model.needs,
            batch_pixels=config.batch_pixels,
            tile_pixels=config.tile_pixels,
            record_seconds=config.record_seconds,
            actors_per_node=cluster.actors_per_node(config.num_actors),
        )


def open_night(config: SegmentConfig, source: Source, ready: Ready) -> Night:
    """Name what a run that is ready will make. Nothing is written."""
    generation = Generation(
        model=ready.model.digest,
        network=ready.model.spec.name,
        precision=config.precision,
        max_pixels=config.max_pixels,
        task=config.task or "",
    )
    return Night(config, source, storage.parse_uri(config.output), ready.model, generation)


def plan_work(night: Night, before: Snapshot | None, *, dry: bool = False) -> tuple[Plan, Worklist]:
    """The plan and what there is to do, by the listing of the output and the input as it is now."""
    published = head.read(night.output)
    plan = plans.plan_units(
        night.source,
        night.output,
        night.generation,
        night.model.needs,
        unit_records=night.source.unit_records,
        unit_bytes=night.source.unit_bytes,
        like=published.generation if published else None,
        dry=dry,
    )
    config = night.config
    found = Found(
        parts=list_parts(night.folder).keys(),
        rows=partial(carry.row_states, night.output, night.generation),
        published={part.name: part.transient for part in before.parts} if before else {},
        failures=parked.failures(night.output, night.generation),
    )
    again = Again(
        errors=config.retry_errors, changed=config.replace_changed, parked=config.retry_parked
    )
    return plan, sort_out(plan, night.source, found, again)
