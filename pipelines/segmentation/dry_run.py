"""What a run of bulk segmentation would do, and how long it would take, without doing it.

Everything that a run would refuse is refused here too. A few records are read and, on a worker,
segmented; nothing is planned, written or published. The one thing that touches the output is the
preflight's trial of an object, which it deletes again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import ray

from fcn_model.tile_plans import tile_plan
from pipelines import cluster
from pipelines.errors import ChangedError, ClusterError, NotFoundError, ShardError
from pipelines.masks import snapshots
from pipelines.masks.worklist import Task, Worklist
from pipelines.segmentation import calibration, preflight, sampling
from pipelines.segmentation.amounts import duration, many, size
from pipelines.segmentation.calibration import Calibration
from pipelines.segmentation.opening import Night, open_night, plan_work
from pipelines.segmentation.preflight import Ready, input_bytes
from pipelines.segmentation.progress import Say
from pipelines.segmentation.sampling import DAMAGED, Sample
from pipelines.segmentation.settings import SegmentConfig
from pipelines.segmentation.stages import DECODED_BYTES
from pipelines.sources import Source
from pipelines.units import Unit

SAMPLED = 32
"""Records whose headers are looked at."""

MEASURED = 8
"""Of these, about how many are segmented."""

SHOWN = 3

STORE_UNITS = 6
"""Decoded units of an actor that Ray's object store should hold: those in flight and in queues."""


@dataclass(frozen=True)
class Estimate:
    """What is to be done, in images, and what it needs. ``exact``: the images are counted."""

    images: int
    exact: bool
    seconds: float | None
    mask_bytes: int | None
    task_bytes: int
    store_bytes: int


def dry_run(config: SegmentConfig, source: Source, say: Say, *, ready: Ready | None = None) -> None:
    """Say what `segment` would find, do and need. Raises as it does before any work.

    ``ready`` is the preflight's result where that was made before. Needs a running Ray.
    """
    ready = ready or preflight.check(config, source)
    night = open_night(config, source, ready)
    for made in (*ready.checks, preflight.check_cluster(config)):
        say(f"checked {made.what}: {made.found}")
    base = snapshots.latest(night.output, night.generation.id)
    _, work = plan_work(night, base, dry=True)
    for line in (*input_lines(source), *work_lines(work)):
        say(line)
    units = [task.unit for task in (*work.todo, *work.retry)]
    if not units:
        say(f"nothing to do in {night.folder}; nothing was written")
        return
    sample = sampling.take(units, SAMPLED, config.max_pixels)
    for line in (*size_lines(sample), *tile_lines(sample, night)):
        say(line)
    measured, why = _calibrated(night, units)
    estimate = estimated(units, sample, measured, config.num_actors)
    for line in need_lines(estimate, measured, why, config.num_actors):
        say(line)
    space = preflight.check_space(night.output, units, wanted=estimate.mask_bytes)
    say(f"masks: {night.folder}; space: {space.found}")
    say("nothing was written")


def input_lines(source: Source) -> Iterator[str]:
    """What the input holds."""
    records = source.records
    images = "images" if records is None else many(records, "image")
    pieces = many(len(source.units), "tar" if source.layout == "tar" else "piece")
    held = size(input_bytes(source.units))
    yield f"input: {source.uri} ({source.layout}): {images} in {pieces}, {held}"


def work_lines(work: Worklist) -> Iterator[str]:
    """What of it is to do, and what is not; what there is none of is not named."""
    new = [task for task in work.todo if task.was is None]
    replaced = [task for task in work.todo if task.was is not None]
    for tasks, what in (
        (new, "new: to be segmented"),
        (replaced, "changed since: to be segmented again"),
        (work.retry, "with errors that may pass: to be tried again"),
        (work.done, "done before"),
        (work.changed, "changed since, whose old masks stay without --replace-changed"),
        (work.parked, "parked, for several runs could not do them; --retry-parked tries again"),
        (work.vanished, "deleted before they were segmented"),
    ):
        if tasks:
            yield f"{many(len(tasks), 'unit')} {what} ({_contents(tasks)})"
    if work.gone:
        yield f"gone since they were planned: {many(work.gone, 'file')}; their rows stay"
    if work.strays:
        yield f"of units that no plan has: {many(len(work.strays), 'part')}; verify names them"


def size_lines(sample: Sample) -> Iterator[str]:
    """What the sampled images look like."""
    broken = sample.refused[DAMAGED]
    if refused := sample.refused - Counter({DAMAGED: broken}):
        kinds = ", ".join(f"{count} {kind}" for kind, count in refused.most_common(SHOWN))
        records = sample.records - broken
        yield f"{refused.total()} of {records} records sampled would be error rows: {kinds}"
    if broken:
        yield f"{many(broken, 'unit')} sampled cannot be read, and would have no masks"
    if not sample.sizes:
        yield "sizes: unknown, for no sampled record could be opened"
        return
    high, wide = (int(median(axis)) for axis in zip(*sample.sizes, strict=True))
    yield (
        f"sizes of {len(sample.sizes)} images sampled: {high}x{wide} in the middle, "
        f"{_by(sample.largest)} the largest (height x width)"
    )


def tile_lines(sample: Sample, night: Night) -> Iterator[str]:
    """How the sampled images that are too large for one pass would be cut."""
    budget = night.config.tile_pixels
    plans = {each: tile_plan(night.model.spec, each, budget) for each in set(sample.sizes)}
    cut = [plan for plan in plans.values() if plan.count > 1]
    share = sum(plans[each].count > 1 for each in sample.sizes)
    if not cut:
        yield f"tiles: none of the images sampled is over {budget / 1e6:.1f} million pixels"
        return
    yield f"tiles: {share} of {len(sample.sizes)} images sampled are cut (--tile-pixels {budget})"
    for plan in sorted(cut, key=lambda plan: -plan.count)[:SHOWN]:
        yield (
            f"  {_by(plan.size)} into {plan.count} windows of up to {_by(plan.window)}, "
            f"{plan.overhead:.2f} times its pixels to compute"
        )


def estimated(
    units: Sequence[Unit], sample: Sample, measured: Calibration | None, actors: int
) -> Estimate:
    """What ``units`` take, reckoned from the sample and the measurement."""
    known = [unit.records for unit in units if unit.records is not None]
    uncounted = [unit for unit in units if unit.records is None]
    images = sum(known) + round(input_bytes(uncounted) / sample.mean_bytes)
    rate = measured.rate(actors, _cores()) if measured else None
    records = max([*known, *(unit.objects[0].size / sample.mean_bytes for unit in uncounted)])
    decoded = min(DECODED_BYTES, int(3 * sample.pixels * records))
    one = 6 * max((height * width for height, width in sample.sizes), default=0)
    return Estimate(
        images=images,
        exact=not uncounted,
        seconds=images / rate if rate and measured else None,
        mask_bytes=int(images * measured.mask_bytes) if measured else None,
        task_bytes=2 * int(decoded + records * sample.mean_bytes) + one,
        store_bytes=STORE_UNITS * actors * decoded,
    )


def need_lines(
    estimate: Estimate, measured: Calibration | None, why: str, actors: int
) -> Iterator[str]:
    """Memory, speed and time."""
    actor = f", an actor about {size(measured.peak_bytes)} (measured)" if measured else ""
    yield (
        f"memory: a task that decodes or encodes takes up to about {size(estimate.task_bytes)}"
        f"{actor}; the object stores should have {size(estimate.store_bytes)} together"
    )
    if measured is None:
        yield f"speed: not measured: {why}"
        return
    steps = {"decode": measured.decode, "network": measured.network, "encode": measured.encode}
    each = ", ".join(f"{name} {seconds * 1e3:.0f} ms" for name, seconds in steps.items())
    more = f", {measured.rate(actors, _cores()):.2f} with {actors}" if actors > 1 else ""
    yield (
        f"speed on {measured.device}, {many(measured.images, 'image')} segmented: {each} for each; "
        f"{measured.rate(1, _cores()):.2f} images/s with one actor{more}"
    )
    assert estimate.seconds is not None
    about = "" if estimate.exact else "about "
    yield (
        f"time: about {duration(estimate.seconds)} for {about}{many(estimate.images, 'image')}, "
        f"after {measured.start:.0f} s to load the network"
    )


def _calibrated(night: Night, units: Sequence[Unit]) -> tuple[Calibration | None, str]:
    """The measurement, or None and why there is none."""
    try:
        measured = calibration.on_cluster(night.job, list(sampling.pieces(units, MEASURED)))
    except (ClusterError, ShardError, NotFoundError, ChangedError, TimeoutError) as error:
        return None, str(error)
    return measured, "no sampled record became a mask"


def _contents(tasks: Sequence[Task]) -> str:
    units = [task.unit for task in tasks]
    counts = [unit.records for unit in units]
    known = sum(count for count in counts if count is not None)
    images = f"{many(known, 'image')}, " if None not in counts else ""
    return f"{images}{size(input_bytes(units))}"


def _cores() -> int:
    """Cores for tasks and actors: no more than Ray counts, nor than machines like this one have."""
    nodes = sum(node["Alive"] for node in ray.nodes())
    return min(int(ray.cluster_resources().get("CPU", 1)), nodes * cluster.usable_cores())


def _by(each: tuple[int, int]) -> str:
    return f"{each[0]}x{each[1]}"
