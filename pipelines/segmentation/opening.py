"""A run of bulk segmentation before its work: what it is about, checked, and what is to do."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from functools import partial

from fcn_model import ClassList, ModelConfig
from pipelines import checkpoints, cluster, storage
from pipelines.errors import InputError
from pipelines.masks import carry, head, parked, plans
from pipelines.masks.generation import Generation, data_uri
from pipelines.masks.parts import list_parts
from pipelines.masks.plans import Plan
from pipelines.masks.snapshot import Snapshot
from pipelines.masks.sorting import Again, Found, sort_out
from pipelines.masks.worklist import Worklist
from pipelines.segmentation.settings import SegmentConfig
from pipelines.sources import Source


@dataclass(frozen=True)
class Night:
    """A run, opened: what it is about, checked against each other."""

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


def open_night(config: SegmentConfig, source: Source) -> Night:
    """Check what is asked for, without writing anything. Raises as `segment` does before work."""
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
    return Night(config, source, output, model, generation)


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
