"""A run of bulk segmentation after its work: what stands, what is missing and why, and publishing.

The listing decides. Receipts only save reading again what this run itself has written.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pipelines.masks import condemned, head, parked, plans, snapshots
from pipelines.masks.generation import PartName
from pipelines.masks.parts import Stats, list_parts
from pipelines.masks.plans import Plan
from pipelines.masks.snapshot import Snapshot, SnapshotPart
from pipelines.masks.worklist import Settled, Task, Worklist
from pipelines.segmentation import gate
from pipelines.segmentation.opening import Night
from pipelines.segmentation.result import SegmentResult
from pipelines.segmentation.shift import Receipt
from pipelines.storage import ObjectRef

READS_AT_ONCE = 16


class Standing:
    """The parts that stand after the work, each as a snapshot has it."""

    def __init__(self, night: Night, before: Snapshot | None, receipts: Sequence[Receipt]) -> None:
        self.found = list_parts(night.folder)
        self.told = {receipt["part"]: receipt for receipt in receipts}
        self.entries = {
            part.name: part
            for part in (before.parts if before else ())
            if part.name in self.found and _same(part, self.found[part.name])
        }
        self.in_snapshot = frozenset(self.entries)

    def of(self, names: Sequence[PartName]) -> list[SnapshotPart]:
        """The entries of parts; what neither the snapshot nor a receipt tells is read."""
        new = [name for name in names if name not in self.entries]
        with ThreadPoolExecutor(READS_AT_ONCE) as pool:
            self.entries.update(zip(new, pool.map(self._entry, new), strict=True))
        return [self.entries[name] for name in names]

    def _entry(self, name: PartName) -> SnapshotPart:
        ref, receipt = self.found[name], self.told.get(name.file)
        if receipt is None or receipt["outcome"] != "committed" or receipt["bytes"] != ref.size:
            return snapshots.describe_part(ref)
        stats = Stats.from_value(receipt["stats"])
        return SnapshotPart(
            name=name,
            etag=ref.etag,
            size=ref.size,
            sha256=receipt["sha256"],
            rows=stats.records,
            errors=stats.errors,
            transient=stats.transient,
            class_pixels=stats.class_pixels,
            constant=stats.constant,
        )


def settle(
    night: Night, plan: Plan, work: Worklist, standing: Standing, receipts: Sequence[Receipt]
) -> SegmentResult:
    """What stands, what is missing and why, and whether what no snapshot has yet is fit for one."""
    settled = _settled(night, plan, work, standing)
    entries = standing.of(settled.parts)
    made = [Stats.from_value(receipt["stats"]) for receipt in receipts if "stats" in receipt]
    result = SegmentResult(
        masks=night.folder,
        generation=night.generation.id,
        units=work.units,
        already=len(work.done),
        records=sum(part.rows for part in entries),
        error_rows=sum(part.error_rows for part in entries),
        new_records=sum(stats.records for stats in made),
        errors=sum(sum(stats.errors.values()) for stats in made),
        gone=work.gone,
        changed=sorted(task.unit.identity for task in work.changed),
        faults=gate.faults(
            [part for part in entries if part.name not in standing.in_snapshot],
            night.config,
            expected={"missing": work.gone_todo},
        ),
    )
    for task in settled.missing:
        why = str((standing.told.get(task.name.file) or {}).get("failed") or _lost(night))
        runs = parked.record_failure(night.output, night.generation, task.name, why, night.run)
        result.failed[task.unit.identity] = why + _runs(runs)
    for task in work.parked:
        result.parked[task.unit.identity] = _why_parked(night, task)
    return result


def publish(
    night: Night, plan: Plan, work: Worklist, standing: Standing, result: SegmentResult
) -> None:
    """Put the parts that count into a snapshot, and that before the readers' eyes."""

    def change(_: Snapshot | None) -> tuple[list[SnapshotPart], frozenset[str]]:
        settled = _settled(night, plan, work, standing)
        condemned.refuse_parts(night.output, night.generation.id, settled.parts)
        return standing.of(settled.parts), settled.drop

    snapshot = snapshots.extend_by(night.output, night.generation.id, change, night.run)
    result.snapshot = snapshot.sequence
    result.unpublished_because = head.advance(night.output, snapshot, excused=work.excused)
    result.published = not result.unpublished_because


def _settled(night: Night, plan: Plan, work: Worklist, standing: Standing) -> Settled:
    now = plans.caught_up(plan, night.output, night.generation.id)
    return work.settle(now, standing.found.keys())


def _same(part: SnapshotPart, ref: ObjectRef) -> bool:
    return (part.etag, part.size) == (ref.etag, ref.size)


def _lost(night: Night) -> str:
    return (
        "no part appeared, though its work was given out; do all nodes see "
        f"{night.output} as the same store or disk?"
    )


def _runs(runs: int) -> str:
    if runs < parked.PARK_AFTER:
        return ""
    return f" (in {runs} runs; it is parked until it changes, or for --retry-parked)"


def _why_parked(night: Night, task: Task) -> str:
    reason = parked.last_reason(night.output, night.generation, task.name, parked.PARK_AFTER)
    return f"{reason} (in {parked.PARK_AFTER} runs; --retry-parked tries again)"
