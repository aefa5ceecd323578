"""Sorting a plan by what stands, what the input is now, and what failed before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

from pipelines.masks.carry import RowState
from pipelines.masks.generation import PartName, part_name, short_hash
from pipelines.masks.parked import PARK_AFTER
from pipelines.masks.plans import Plan, objects_of
from pipelines.masks.recuts import Newest, recuts_of
from pipelines.masks.worklist import Task, Worklist
from pipelines.sources import Source
from pipelines.storage import ObjectRef
from pipelines.units import Unit

_READS = 16

Verdict = Literal["done", "todo", "retry", "changed", "parked", "vanished"]


@dataclass(frozen=True, kw_only=True)
class Again:
    """What is done again although it has been done, or given up."""

    errors: bool = False
    """Units of which the published part has error rows that may pass."""
    changed: bool = False
    """Units whose input changed since; their new parts replace the old ones."""
    parked: bool = False
    """Units that failed in several runs."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What an output holds of a generation."""

    parts: Collection[PartName]
    """As the folder of parts lists them."""
    rows: Callable[[PartName], Sequence[RowState]]
    """What the rows of a part are of (`carry.row_states`). Asked only where the input of a unit is
    partly gone, so that names cannot tell whether the rest is as it was."""
    published: Mapping[PartName, int] = field(default_factory=dict)
    """The parts of the newest snapshot, and how many of their error rows may pass if retried."""
    failures: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By unit and version, how many runs could not do it (`parked.failures`)."""


def sort_out(plan: Plan, source: Source, found: Found, again: Again = Again()) -> Worklist:
    """Every unit of a plan, in the list that it belongs to.

    A unit is done if a part of its input's present versions stands, whoever made it and whatever a
    snapshot says. Input that is gone does not undo a unit. A shard that was cut anew counts as
    changed as a whole while a part of an old cut stands and the new one is not complete.
    """
    listed = objects_of(source)
    newest = Newest(found.parts)
    recuts = recuts_of(plan.units, plan.superseded)
    blocked = {uri for uri, recut in recuts.items() if uri in listed and recut.blocked(newest)}
    looks = [_look(unit, listed, newest, found) for unit in plan.units]
    judge = _Judge(listed, found, again, blocked, _rows_of_doubtful(looks, found, again))
    work = Worklist()
    for look in looks:
        verdict, task = judge.verdict(look)
        getattr(work, verdict).append(task)
        if verdict == "todo" and task.was is None:
            work.gone_todo += look.gone
    current = {look.task.name.unit for look in looks}
    old = {unit for recut in recuts.values() for unit in recut.units} - current
    work.strays = sorted(part for part in found.parts if part.unit not in current | old)
    work.gone = sum(look.gone for look in looks if look.raw) + len(
        {look.uri for look in looks if look.gone and not look.raw}
    )
    work.excused = frozenset(old | {task.name.unit for task in work.vanished})
    return work


@dataclass(frozen=True, slots=True)
class _Look:
    """A unit as it is now, and which of its parts stand.

    ``exact`` is the part of the versions that are there now. ``task.was`` is the part that is to
    stay if it holds: the exact one, else the published one, else any. Where some input is gone, the
    published one comes first, for its rows of what is gone may be newer than those of the plan.
    """

    task: Task
    planned: Unit
    gone: int
    exact: PartName | None

    @property
    def raw(self) -> bool:
        return self.planned.kind == "raw"

    @property
    def uri(self) -> str:
        return self.planned.objects[0].uri

    @property
    def all_gone(self) -> bool:
        return self.gone == len(self.planned.objects)

    @property
    def was_exact(self) -> bool:
        return self.task.was is not None and self.task.was == self.exact


def _look(unit: Unit, listed: Mapping[str, ObjectRef], newest: Newest, found: Found) -> _Look:
    now = _pinned_to(unit, listed)
    name = part_name(now)
    gone = sum(ref.uri not in listed for ref in unit.objects)
    exact = newest.of(name)
    was = exact
    if exact is None or (gone and unit.kind == "raw"):
        others = newest.of_unit(name.unit)
        published = next((part for part in others if part in found.published), None)
        was = published or exact or (others[-1] if others else None)
    return _Look(Task(now, name, was), unit, gone, exact)


def _pinned_to(unit: Unit, listed: Mapping[str, ObjectRef]) -> Unit:
    """The unit in the versions that are there now; what is gone keeps its planned version."""

    def now(refs: tuple[ObjectRef, ...]) -> tuple[ObjectRef, ...]:
        return tuple(listed.get(ref.uri, ref) for ref in refs)

    objects = now(unit.objects)
    planes = tuple((name, now(refs)) for name, refs in unit.planes)
    if (objects, planes) == (unit.objects, unit.planes):
        return unit
    return replace(unit, objects=objects, planes=planes)


def _rows_of_doubtful(
    looks: Sequence[_Look], found: Found, again: Again
) -> dict[PartName, Sequence[RowState]]:
    """The rows of parts of which names alone do not say whether they still hold."""
    parts = list(_doubtful(looks, found, again))
    with ThreadPoolExecutor(_READS) as pool:
        return dict(zip(parts, pool.map(found.rows, parts), strict=True))


def _doubtful(looks: Sequence[_Look], found: Found, again: Again) -> Iterator[PartName]:
    for look in looks:
        if not look.raw or not look.gone or look.task.was is None:
            continue
        retried = again.errors and found.published.get(look.task.was)
        # A part of the planned versions is outdated by a change alone: what is gone is pinned so.
        planned = short_hash(look.planned.version)
        if retried or not (look.was_exact or look.task.was.version == planned):
            yield look.task.was


@dataclass(frozen=True)
class _Judge:
    listed: Mapping[str, ObjectRef]
    found: Found
    again: Again
    blocked: Collection[str]
    rows: Mapping[PartName, Sequence[RowState]]

    def verdict(self, look: _Look) -> tuple[Verdict, Task]:
        """The list that a unit belongs to, and its task there."""
        was = look.task.was if look.was_exact or not self._changed(look) else look.exact
        blocked = not look.raw and look.uri in self.blocked
        if was is not None:
            if blocked and not self.again.changed:
                return "changed", look.task
            return self._done_or_retry(look, was)
        if look.all_gone:
            return "vanished", look.task
        if (look.task.was or blocked) and not self.again.changed:
            return "changed", look.task
        return ("parked" if self._parked(look.task.name) else "todo"), look.task

    def _done_or_retry(self, look: _Look, was: PartName) -> tuple[Verdict, Task]:
        if not self._may_pass(look, was):
            return "done", Task(look.task.unit, was)
        retry = look.exact.retry + 1 if look.exact else 0
        task = Task(look.task.unit, replace(look.task.name, retry=retry), was)
        return ("parked" if self._parked(task.name) else "retry"), task

    def _changed(self, look: _Look) -> bool:
        """Whether what is left of the input is not what the part was made of."""
        if look.all_gone:
            return False
        if not look.raw:
            return True
        rows = self.rows.get(look.task.was) if look.task.was else None
        if rows is None or look.planned.planes:  # rows do not say which planes they had
            return True
        there = (self.listed.get(row.uri) for row in rows)
        return any(ref and ref.etag != row.etag for ref, row in zip(there, rows, strict=True))

    def _may_pass(self, look: _Look, part: PartName) -> bool:
        """Whether an error row of the part may pass, of a record that is still there."""
        if not self.again.errors or not self.found.published.get(part) or look.all_gone:
            return False
        rows = self.rows.get(part)
        return rows is None or any(row.transient and row.uri in self.listed for row in rows)

    def _parked(self, name: PartName) -> bool:
        count = self.found.failures.get((name.unit, name.version), 0)
        return count >= PARK_AFTER and not self.again.parked
