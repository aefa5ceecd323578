"""A run of bulk segmentation after its work: what stands, what is missing and why, and publishing.

The listing decides. Receipts only save reading again what this run itself has written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipelines.masks import head, parked, plans, snapshots
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


def settle(
    night: Night,
    plan: Plan,
    work: Worklist,
    before: Snapshot | None,
    receipts: Sequence[Receipt],
) -> tuple[SegmentResult, Settled, list[SnapshotPart]]:
    """List again, and see what stands, what is missing and why, and what a snapshot lacks."""
    found = list_parts(night.folder)
    now = plans.caught_up(plan, night.output, night.generation.id)
    settled = work.settle(now, found.keys())
    told = {receipt["part"]: receipt for receipt in receipts}
    known = {part.name: part for part in before.parts} if before else {}
    new = [name for name in settled.parts if not _same(known.get(name), found[name])]
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        added = list(pool.map(lambda name: _entry(found[name], name, told), new))
    standing = {**known, **{part.name: part for part in added}}
    result = SegmentResult(
        masks=night.folder,
        generation=night.generation.id,
        units=work.units,
        already=len(work.done),
        records=sum(standing[name].rows for name in settled.parts),
        error_rows=sum(standing[name].error_rows for name in settled.parts),
        new_records=sum(Stats(**receipt["stats"]).records for receipt in _made(receipts)),
        errors=sum(sum(receipt["stats"]["errors"].values()) for receipt in _made(receipts)),
        gone=work.gone,
        changed=sorted(task.unit.identity for task in work.changed),
        faults=gate.faults(added, night.config),
    )
    for task in settled.missing:
        why = str((told.get(task.name.file) or {}).get("failed") or _lost(night))
        runs = parked.record_failure(night.output, night.generation, task.name, why, night.run)
        result.failed[task.unit.identity] = why + _runs(runs)
    for task in work.parked:
        result.parked[task.unit.identity] = _why_parked(night, task)
    return result, settled, added


def _made(receipts: Sequence[Receipt]) -> list[Receipt]:
    return [receipt for receipt in receipts if "stats" in receipt]


def _same(part: SnapshotPart | None, ref: ObjectRef) -> bool:
    return part is not None and (part.etag, part.size) == (ref.etag, ref.size)


def _entry(ref: ObjectRef, name: PartName, told: Mapping[str, Receipt]) -> SnapshotPart:
    """A part as a snapshot has it: from the receipt of who wrote it, or else from its bytes."""
    receipt = told.get(name.file)
    if receipt is None or receipt["outcome"] != "committed" or receipt["bytes"] != ref.size:
        return snapshots.describe_part(ref)
    stats = Stats(**receipt["stats"])
    return SnapshotPart(
        name=name,
        etag=ref.etag,
        size=ref.size,
        sha256=receipt["sha256"],
        rows=stats.records,
        errors=stats.errors,
        transient=stats.transient,
        class_pixels=tuple(stats.class_pixels),
    )


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


def publish(
    night: Night, settled: Settled, added: list[SnapshotPart], result: SegmentResult
) -> None:
    """Put the parts that count into a snapshot, and that before the readers' eyes."""
    snapshot = snapshots.extend(
        night.output, night.generation.id, added, night.run, drop=settled.drop
    )
    result.snapshot = snapshot.sequence
    result.unpublished_because = head.advance(night.output, snapshot)
    result.published = not result.unpublished_because
