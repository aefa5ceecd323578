"""An archive that changes at random over many nights keeps every record exactly once in the masks.

The nights run on a model of the world: input, parts and snapshot are dictionaries, and whoever
works on a unit may be killed, may fail, or may find its input changed under its hands. Only plans,
worklists and the rules of carrying rows over are the real ones.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pytest

from pipelines import storage
from pipelines.cutting import cut
from pipelines.errors import NotFoundError
from pipelines.masks import carry
from pipelines.masks.generation import Generation, PartName
from pipelines.masks.plans import caught_up, plan_units
from pipelines.masks.sorting import Again, Found, sort_out
from pipelines.masks.worklist import Settled, Worklist
from pipelines.sources import Source
from pipelines.storage import ObjectRef
from pipelines.units import Unit

GENERATION = Generation(model="m", network="n", precision="fp32", max_pixels=1)
OUTPUT = "file:///out"
EVERYTHING = Again(errors=True, changed=True, parked=True)


class Row(NamedTuple):
    """A row of a part: which record, of which version of its object, and with what outcome."""

    record: str
    uri: str
    etag: str
    outcome: str  # ok, error, or transient


@dataclass
class World:
    """The input as it is now, and everything that nights have left behind."""

    rng: random.Random
    mishaps: float = 0.0
    """Probability of each mishap, at each unit or record."""
    clock: int = 0
    files: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    """Name → version, and the records inside: one in a file, any number in a shard."""
    parts: dict[PartName, list[Row]] = field(default_factory=dict)
    published: dict[str, PartName] = field(default_factory=dict)
    failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    asked: int = 0

    def happens(self) -> bool:
        return self.rng.random() < self.mishaps

    def put(self, name: str) -> None:
        raise NotImplementedError

    def repair(self) -> None:
        """Put right what is broken of the input."""

    def source(self) -> Source:
        raise NotImplementedError

    def read(self, unit: Unit, was: PartName | None) -> list[Row] | None:
        """The rows of a unit as a worker makes them now, or None if it cannot."""
        raise NotImplementedError

    def change(self) -> None:
        """Add, overwrite, delete or bring back some input."""
        for _ in range(self.rng.randint(0, 6)):
            name = f"s3://in/{self.rng.randint(0, 25):02d}"
            if name in self.files and self.rng.random() < 0.3:
                del self.files[name]
            else:
                self.put(name)

    def version(self) -> str:
        self.clock += 1
        return f"e{self.clock}"

    def states(self, part: PartName) -> list[carry.RowState]:
        self.asked += 1
        return self._states(part)

    def _states(self, part: PartName) -> list[carry.RowState]:
        rows = self.parts[part]
        return [carry.RowState(row.uri, row.etag, row.outcome == "transient") for row in rows]

    def outcome(self) -> str:
        return self.rng.choice(["error", "transient"]) if self.happens() else "ok"

    def rows(self) -> list[Row]:
        """What readers of the snapshot see."""
        return [row for part in self.published.values() for row in self.parts[part]]


class Images(World):
    """An archive of single files; their versions come and go, and sometimes come back."""

    def put(self, name: str) -> None:
        again = self.rng.random() < 0.2
        version = f"e{self.rng.randint(1, self.clock)}" if again and self.clock else self.version()
        self.files[name] = (version, (name,))

    def source(self) -> Source:
        refs = tuple(ObjectRef(uri, self.files[uri][0], 1) for uri in sorted(self.files))
        unit = Unit("raw", refs, keys=tuple(ref.uri for ref in refs))
        return Source("s3://in", "archive", None, (unit,) if refs else ())

    def read(self, unit: Unit, was: PartName | None) -> list[Row] | None:
        old = self.parts[was] if was else []
        held = carry.holding(unit, self._states(was)) if was else []
        rows = []
        for number, ref in enumerate(unit.objects):
            now, _ = self.files.get(ref.uri, (None, ()))
            if number in held or (now is None and was):
                rows.append(old[number])
            else:
                outcome = self.outcome() if now == ref.etag else "transient"
                rows.append(Row(ref.uri, ref.uri, ref.etag, outcome))
        return rows


class Shards(World):
    """An archive of shards; records move within them, and tonight's cut is never last night's."""

    def put(self, name: str) -> None:
        _, records = self.files.get(name, ("", ()))
        kept = [record for record in records if self.rng.random() < 0.8]
        new = [f"{name}/{self.version()}" for _ in range(self.rng.randint(1, 4))]
        self.rng.shuffle(kept := kept + new)
        self.files[name] = (self.version(), tuple(kept))

    def source(self) -> Source:
        units = []
        for uri, (version, records) in sorted(self.files.items()):
            ones = [1] * len(records)
            for start, stop in cut(ones, ones, self.rng.randint(1, 6), 99):
                units.append(Unit("parquet", (ObjectRef(uri, version, 1),), start=start, stop=stop))
        return Source("s3://in", "shards", None, tuple(units))

    def read(self, unit: Unit, was: PartName | None) -> list[Row] | None:
        ref = unit.objects[0]
        now, records = self.files.get(ref.uri, (None, ()))
        if now != ref.etag:
            return None
        records = records[unit.start : unit.stop]
        return [Row(record, ref.uri, ref.etag, self.outcome()) for record in records]


@dataclass
class BrokenShards(Shards):
    """Some versions have no readable footer, and with mishaps a good footer is sometimes misread.

    Such a shard is listed as one unit, the whole object.
    """

    broken: set[str] = field(default_factory=set)

    def put(self, name: str) -> None:
        super().put(name)
        if self.rng.random() < 0.3:
            self.broken.add(self.files[name][0])

    def source(self) -> Source:
        source = super().source()
        misread = {uri for uri in sorted(self.files) if self.happens()}
        units: dict[Unit, None] = {}
        for unit in source.units:
            (ref,) = unit.objects
            whole = Unit("parquet", (ref,))
            units[whole if ref.etag in self.broken or ref.uri in misread else unit] = None
        return replace(source, units=tuple(units))

    def read(self, unit: Unit, was: PartName | None) -> list[Row] | None:
        return None if unit.objects[0].etag in self.broken else super().read(unit, was)

    def repair(self) -> None:
        for name in [name for name, (version, _) in self.files.items() if version in self.broken]:
            super().put(name)


@pytest.fixture(autouse=True)
def objects(monkeypatch):
    """The output's store, in memory."""
    stored: dict[str, bytes] = {}

    def create(uri, data):
        return stored.setdefault(uri, data) is data

    def listed(root):
        found = [ObjectRef(uri, "e", 1) for uri in sorted(stored) if uri.startswith(f"{root}/")]
        if not found:
            raise NotFoundError(root)
        return iter(found)

    monkeypatch.setattr(storage, "create", create)
    monkeypatch.setattr(storage, "read_bytes", stored.__getitem__)
    monkeypatch.setattr(storage, "stat", stored.get)
    monkeypatch.setattr(storage, "list_objects", listed)
    return stored


def _listed(world):
    source = world.source()
    plan = plan_units(source, OUTPUT, GENERATION, unit_records=world.rng.randint(1, 6))
    return plan, source


def _sorted(world, plan, source, again):
    found = Found(
        parts=list(world.parts),
        rows=world.states,
        published={
            part: sum(row.outcome == "transient" for row in world.parts[part])
            for part in world.published.values()
        },
        failures=world.failures,
    )
    return sort_out(plan, source, found, again)


class Night(NamedTuple):
    """What a run that was not killed found and published."""

    work: Worklist
    settled: Settled
    source: Source


def _night(world, again, rival=False):
    """One run of the job. Another one may do all of its work in the middle of it."""
    plan, source = _listed(world)
    work = _sorted(world, plan, source, again)
    if rival:
        world.change()
        _night(world, again)
    for task in world.rng.sample([*work.todo, *work.retry], len(work.todo) + len(work.retry)):
        if world.mishaps and world.rng.random() < 0.03:
            return None  # killed: nothing is published
        if world.happens():
            world.change()
        rows = None if world.happens() else world.read(task.unit, task.was)
        if rows is None:
            world.failures[task.name.unit, task.name.version] += 1
        else:
            world.parts.setdefault(task.name, rows)  # the first to create it wins
    settled = work.settle(caught_up(plan, OUTPUT, GENERATION.id), list(world.parts))
    assert len({part.unit for part in settled.parts}) == len(settled.parts)
    for unit in settled.drop:
        world.published.pop(unit, None)
    world.published |= {part.unit: part for part in settled.parts}
    return Night(work, settled, source)


def _check_whatever_happened(world):
    rows = world.rows()
    assert max(Counter(row.record for row in rows).values(), default=1) == 1
    if isinstance(world, Shards):
        versions = {(row.uri, row.etag) for row in rows}
        assert len({uri for uri, _ in versions}) == len(versions)  # no mixture of versions


def _check_present(world, night):
    """Every record of the listed input stands, in its version, unless it was reported."""
    listed = {ref.uri: ref.etag for unit in night.source.units for ref in unit.objects}
    if listed != {uri: version for uri, (version, _) in world.files.items()}:
        return  # it changed during the night, so this is for the next one
    reported = {
        ref.uri
        for task in (*night.work.changed, *night.work.parked, *night.settled.missing)
        for ref in task.unit.objects
    }
    stand = {row.record: row for row in world.rows()}
    for uri, (version, records) in world.files.items():
        if uri not in reported:
            assert [stand[record].etag for record in records] == [version] * len(records)


def _check_quiet(world):
    """Two nights without mishaps that may replace and retry leave nothing to do, for good.

    The second one retries what the first one found finished, but not published.
    """
    world.mishaps = 0.0
    for _ in range(2):
        _night(world, EVERYTHING)
    rows = world.rows()
    for uri, (version, records) in world.files.items():
        of_file = {row.record: row for row in rows if row.uri == uri}
        assert set(of_file) == set(records)
        assert {row.etag for row in of_file.values()} == {version}
        assert "transient" not in {row.outcome for row in of_file.values()}
    before = dict(world.published)
    for name in world.rng.sample(sorted(world.files), len(world.files) // 3):
        del world.files[name]  # deletions are no work either
    for again in (EVERYTHING, Again()):
        work = _night(world, again).work
        assert [*work.todo, *work.retry, *work.changed, *work.parked, *work.strays] == []
        assert world.published == before


@pytest.mark.parametrize("kind", [Images, Shards, BrokenShards])
@pytest.mark.parametrize("mishaps", [0.0, 0.05, 0.2])
def test_every_record_stands_once_whatever_happens_over_the_nights(kind, mishaps, objects):
    asked = 0
    for seed in range(8):
        objects.clear()
        world = kind(random.Random(f"{seed} {mishaps}"), mishaps)  # repeat it with this seed
        for night in range(8):
            world.change()
            again = Again(**{name: world.rng.random() < 0.4 for name in vars(EVERYTHING)})
            good = {row.uri: row for row in world.rows() if row.outcome == "ok"}
            finished = _night(world, again, rival=world.happens())
            _check_whatever_happened(world)
            if finished:
                _check_present(world, finished)
            for row in world.rows() if kind is Images else ():
                if row.uri in good and row.uri not in world.files and not mishaps:
                    assert row == good[row.uri], (seed, night)  # what is deleted keeps its mask
            lost = {row.uri for row in good.values()} - {row.uri for row in world.rows()}
            assert not lost, (seed, night)
        asked += world.asked
        world.mishaps = 0.0
        world.change()
        world.repair()
        _check_quiet(world)
    assert bool(asked) == (kind is Images)  # the rare question does come up
