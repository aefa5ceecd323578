"""What is left to do of a plan, and, once it was tried, which parts count."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from pipelines.masks.generation import PartName
from pipelines.masks.plans import Plan
from pipelines.masks.recuts import Newest, recuts_of
from pipelines.units import Unit


@dataclass(frozen=True, slots=True)
class Task:
    """A unit, its objects in the versions that are there now, and its part.

    An object that is gone stays in the unit in the version that was planned. ``was`` is a part of
    the unit that stands already, of another version or an earlier try; its rows of records that are
    gone or did not change still hold (`pipelines.masks.carry`).
    """

    unit: Unit
    name: PartName
    """Of a task to do, the part that it will make; of a done one, the part that stands."""
    was: PartName | None = None


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Which parts count, of those that stand after the work."""

    parts: tuple[PartName, ...]
    """One of each unit that has any: what the next snapshot is to hold."""
    drop: frozenset[str]
    """Units of old cuts of shards that must leave the snapshot when ``parts`` enter it."""
    missing: tuple[Task, ...]
    """Tasks that were to do, and whose part does not stand."""


@dataclass(kw_only=True)
class Worklist:
    """The units of a plan, each in one list, and what else was found."""

    done: list[Task] = field(default_factory=list)
    todo: list[Task] = field(default_factory=list)
    """Without a part, or, if changed input is to be replaced, with one of another version."""
    retry: list[Task] = field(default_factory=list)
    """Done, with error rows that may pass when tried again: the next try at the same version."""
    changed: list[Task] = field(default_factory=list)
    """Done from input that has changed since, and not to be replaced: the old rows stay."""
    parked: list[Task] = field(default_factory=list)
    """To do or to retry, but given up: it failed in several runs, always in the present version."""
    vanished: list[Task] = field(default_factory=list)
    """To do, but all of its input was deleted before."""
    strays: list[PartName] = field(default_factory=list)
    """Parts of units that nobody planned."""
    gone: int = 0
    """Planned files and shards that do not exist any more; the rows that they have stay."""
    gone_todo: int = 0
    """Those of them in ``todo`` that no part has rows of: error rows ``missing`` that are to come,
    and that say nothing against the model or the store."""
    excused: frozenset[str] = frozenset()
    """Units that another generation need not have in order to cover this plan's input, and that
    may be missing here: those of old cuts, and the vanished."""

    @property
    def units(self) -> int:
        """How many units the plan has."""
        return sum(map(len, self._lists()))

    def settle(self, plan: Plan, parts: Collection[PartName]) -> Settled:
        """Which of the parts that stand now count: of each unit that of its newest version.

        The units of a shard that was cut anew count together or not at all (`Recut`). Units that
        were not redone keep the part that they had. ``plan`` is the plan as it is now
        (`plans.caught_up`): another run may have cut a shard anew since this one was sorted.
        """
        newest = Newest(parts)
        recuts = recuts_of(plan.units, plan.superseded)
        counted: list[PartName] = []
        drop: set[str] = set()
        for recut in recuts.values():
            more, without = recut.settle(newest)
            counted += more
            drop |= without
        for tasks in self._lists():
            counted += (
                part
                for task in tasks
                if task.unit.objects[0].uri not in recuts and (part := _standing(task, newest))
            )
        return Settled(
            parts=tuple(sorted(counted)),
            drop=frozenset(drop),
            missing=tuple(_missing((*self.todo, *self.retry), newest)),
        )

    def _lists(self) -> tuple[list[Task], ...]:
        return self.done, self.todo, self.retry, self.changed, self.parked, self.vanished


def _standing(task: Task, newest: Newest) -> PartName | None:
    """The part of a unit that counts now: the one of the task, or else the one that was to stay.

    An earlier try at the task's version is not the task's: the part that was to stay may be newer,
    with rows of an image that changed and then was deleted.
    """
    part = newest.of(task.name)
    if task.was and (part is None or part.retry < task.name.retry):
        return newest.of(task.was) or part
    return part


def _missing(tasks: Iterable[Task], newest: Newest) -> Iterable[Task]:
    for task in tasks:
        part = newest.of(task.name)
        if part is None or part.retry < task.name.retry:
            yield task
