"""What an output may be rid of: old snapshots, replaced parts, old generations, leftovers.

Everything here only reads. Ages are by the store's clock; what is younger than the grace stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pipelines.errors import InputError, NotFoundError
from pipelines.masks import head, snapshots
from pipelines.masks.census import Census, Found, Kind, take_census
from pipelines.masks.condemned import Condemned
from pipelines.masks.head import Head
from pipelines.masks.leftovers import AT_WORK_SECONDS
from pipelines.masks.standing import parts_by_unit, read_planned, standing

Reason = Literal["old snapshot", "stray part", "old generation", "leftover"]

ORDER: tuple[Kind, ...] = (
    *("snapshot", "part", "temporary", "probe", "failure", "input", "plan", "generation"),
    "removal",
)
"""Of deletion. Snapshots go before the parts that they name; a generation's record is its last."""


@dataclass(frozen=True, kw_only=True)
class Keep:
    """What is kept though it may not be needed."""

    grace_days: float = 7.0
    """Days for which whatever was written or published stays."""
    keep_snapshots: int = 30
    """Snapshots of each generation that stay, at least."""
    keep_generations: int = 2
    """Generations that stay: the published one and those before it."""

    def __post_init__(self) -> None:
        if not self.grace_days >= 0:
            raise InputError(f"--grace-days is {self.grace_days}; it must be 0 or more")
        for name in ("keep_snapshots", "keep_generations"):
            if getattr(self, name) < 1:
                option = f"--{name.replace('_', '-')}"
                raise InputError(f"{option} is {getattr(self, name)}; it must be 1 or more")

    @property
    def grace(self) -> float:
        """In seconds."""
        return self.grace_days * 86_400


@dataclass(frozen=True)
class Doomed:
    """An object that may go."""

    reason: Reason
    found: Found


@dataclass(frozen=True)
class Removal:
    """What may go of an output, as it was seen."""

    census: Census
    published: Head | None
    doomed: tuple[Doomed, ...]
    """In the order of deletion."""
    dead: frozenset[str]
    """Generations that go as a whole."""

    @property
    def condemned(self) -> Condemned:
        """What nobody may take up any more."""
        return Condemned(
            generations=self.dead,
            snapshots=frozenset(
                (one.found.generation, one.found.sequence)
                for one in self.doomed
                if one.reason == "old snapshot"
            ),
            parts=frozenset(
                (one.found.generation, one.found.name.file)
                for one in self.doomed
                if one.reason == "stray part" and one.found.name
            ),
        )


def decide(output: str, keep: Keep) -> Removal:
    """Look at an output and say what may go.

    Raises NotFoundError if nothing lies there, or the published snapshot is missing, and
    ForeignObjectError for a damaged plan or snapshot: then nobody knows what is needed.
    """
    published = head.read(output)
    census = take_census(output)
    if published and published.sequence not in census.sequences(published.generation):
        raise NotFoundError(
            f"{published} is published in {output}, but it is not there; nothing may be removed "
            "before another one is published, see jobs/publish.py"
        )
    gone = frozenset(dead(census, published, keep))
    doomed = [
        Doomed("old generation", found)
        for found in census.objects
        if found.generation in gone and found.kind in ORDER
    ]
    for generation in census.generations:
        if generation not in gone:
            old = list(old_snapshots(census, generation, published, keep))
            doomed += (Doomed("old snapshot", found) for found in old)
            doomed += (
                Doomed("stray part", found)
                for found in strays(census, generation, {one.sequence for one in old}, keep)
            )
    doomed += (Doomed("leftover", found) for found in _leftovers(census, keep))
    return Removal(census, published, tuple(_in_order(doomed)), gone)


def dead(census: Census, published: Head | None, keep: Keep) -> Iterator[str]:
    """The generations that are not needed any more.

    These are older than the published one, are not among the last that have snapshots, and nothing
    of them is younger than the grace. Nor is the published one, or readers may still be on what was
    published before it. A generation's age is that of its record, which is written once. What is
    younger than the published one may be in the making, and stays.
    """
    if published is None:
        return
    ages = {name: _birth(census, name) for name in census.generations}
    older = [name for name, age in ages.items() if age > ages[published.generation]]
    made = {name: _newest_snapshot(census, name) for name in older if census.sequences(name)}
    last = sorted(made, key=lambda name: made[name])[: keep.keep_generations - 1]
    if ages[published.generation] < keep.grace:
        return
    for name in older:
        youngest = min(found.age for found in census.objects if found.generation == name)
        if name not in last and youngest >= keep.grace:
            yield name


def old_snapshots(
    census: Census, generation: str, published: Head | None, keep: Keep
) -> Iterator[Found]:
    """The snapshots of a generation that nobody needs; none while nothing is published at all.

    The last ones stay, the published one, and those whose successor is younger than the grace:
    until that was made, they were the newest.
    """
    if published is None:
        return
    made = sorted(census.of("snapshot", generation), key=lambda found: found.sequence)
    last = made[-keep.keep_snapshots :]
    for found, successor in pairwise(made):
        shown = (generation, found.sequence) == (published.generation, published.sequence)
        if found not in last and not shown and successor.age >= keep.grace:
            yield found


def strays(census: Census, generation: str, old: set[int], keep: Keep) -> Iterator[Found]:
    """The parts of a generation that no snapshot names but the ``old`` ones, which are to go.

    Parts of units that are in no snapshot yet are none: the next one will name them.
    """
    numbers = census.sequences(generation)
    if not numbers:
        return
    newest = parts_by_unit(snapshots.load(census.output, generation, numbers[-1]))
    planned = read_planned(census, generation)
    found = {
        name: part
        for name, part in census.parts(generation).items()
        if part.age >= keep.grace and standing(name, newest, planned) == "stray"
    }
    for number in numbers if found else ():
        if number not in old:
            for part in snapshots.load(census.output, generation, number).parts:
                found.pop(part.name, None)
    yield from found.values()


def _leftovers(census: Census, keep: Keep) -> Iterator[Found]:
    for found in census.objects:
        patience = AT_WORK_SECONDS if found.kind == "removal" else max(AT_WORK_SECONDS, keep.grace)
        if found.kind in {"temporary", "probe", "removal"} and found.age >= patience:
            yield found


def _birth(census: Census, generation: str) -> float:
    """How long ago a generation began: the age of its record, or of its oldest object."""
    record = census.of("generation", generation)
    whole = (found.age for found in census.objects if found.generation == generation)
    return record[0].age if record else max(whole)


def _newest_snapshot(census: Census, generation: str) -> float:
    """How long ago a generation's last snapshot was made."""
    return min(found.age for found in census.of("snapshot", generation))


def _in_order(doomed: Iterable[Doomed]) -> list[Doomed]:
    """Sorted for deletion, each kind backwards: a gap among the first plans would be damage."""
    backwards = sorted(doomed, key=lambda one: one.found.ref.uri, reverse=True)
    return sorted(backwards, key=lambda one: ORDER.index(one.found.kind))
