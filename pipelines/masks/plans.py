"""Which input forms which unit: written down before work starts, and never changed.

The cut of a shard into ranges, and of single files into groups, must outlive new arrivals and other
settings: an image that was planned yesterday stays in its unit, or tomorrow's run would segment it
twice. Plans are numbered, and each run adds at most one, with what is new.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipelines import storage
from pipelines.errors import InputError
from pipelines.masks.generation import Generation, part_name
from pipelines.sources import Source
from pipelines.storage import ObjectRef
from pipelines.units import Unit

MAX_PLANS = 100_000


@dataclass(frozen=True)
class Plan:
    """Every unit of a source, its objects pinned to the versions that were seen when planned.

    ``superseded`` are units of shards that have been uploaded anew since.
    """

    units: tuple[Unit, ...]
    superseded: tuple[Unit, ...] = ()


@dataclass
class Worklist:
    """A plan, sorted by what is left to do."""

    done: list[Unit] = field(default_factory=list)
    todo: list[Unit] = field(default_factory=list)
    changed: list[Unit] = field(default_factory=list)


def plan_units(
    source: Source, output: str, generation: Generation, planes: Sequence[str] = ()
) -> Plan:
    """The plan of a source under ``output``, extended by what no earlier plan has.

    ``planes`` are those that the generation's network needs beside each image. Runs that plan at
    once agree: one of them wins each number, and the others take its plan over. Raises InputError
    if ``output`` holds masks of other input.
    """
    _claim(source, output, generation)
    folder = storage.join(output, "_fcn", "plan", generation.id)
    plan = Plan(())
    for number in range(MAX_PLANS):
        uri = storage.join(folder, f"{number:05d}.json")
        if storage.stat(uri) is None:
            fresh = _not_in(plan, source.units, planes)
            text = json.dumps([unit.to_json() for unit in fresh])
            if not fresh or storage.create(uri, text.encode()):
                return _extended(plan, fresh)
        added = [Unit.from_json(text) for text in json.loads(storage.read_bytes(uri))]
        plan = _extended(plan, added)
    raise InputError(f"{folder} holds {MAX_PLANS} plans; start a new --output")


def sort_out(plan: Plan, source: Source, parts: Mapping[str, set[str]]) -> Worklist:
    """What of a plan is done, to do, or done from input that has changed since.

    ``parts`` has, by unit, the versions of which there are parts. A unit without a part is to be
    done from the input as it is now. Input that is gone does not undo a unit. A shard that was cut
    anew counts as changed as a whole if any part of its old cut is there: rows would be doubled.
    """
    listed = {
        ref.uri: ref
        for unit in source.units
        for refs in (unit.objects, *(refs for _, refs in unit.planes))
        for ref in refs
    }
    present = {part_name(_pinned_to(unit, listed)) for unit in plan.units}
    recut = {
        unit.objects[0].uri
        for unit in plan.superseded
        if part_name(unit) not in present
        and part_name(unit).version in parts.get(part_name(unit).unit, ())
    }
    work = Worklist()
    for unit in plan.units:
        now = _pinned_to(unit, listed)
        versions = parts.get(part_name(unit).unit, set())
        if unit.objects[0].uri in recut:
            work.changed.append(now)
        elif not versions:
            work.todo.append(now)
        elif part_name(now).version in versions:
            work.done.append(now)
        else:
            work.changed.append(now)
    return work


def _claim(source: Source, output: str, generation: Generation) -> None:
    """Bind a generation under ``output`` to one input: two might overlap, and double records."""
    names = {"input": source.uri, "layout": source.layout, "split": source.split}
    mine = json.dumps(names).encode()
    uri = storage.join(output, "_fcn", "input", f"{generation.id}.json")
    if storage.create(uri, mine):
        return
    theirs = storage.read_bytes(uri)
    if theirs != mine:
        raise InputError(
            f"{output} holds this model's masks of {theirs.decode()}, not of {mine.decode()}; "
            "another input needs another --output, or records could stand there twice"
        )


def _pinned_to(unit: Unit, listed: Mapping[str, ObjectRef]) -> Unit:
    """The unit in the versions that are there now; what is gone keeps its planned version."""

    def now(refs: tuple[ObjectRef, ...]) -> tuple[ObjectRef, ...]:
        return tuple(listed.get(ref.uri, ref) for ref in refs)

    planes = tuple((name, now(refs)) for name, refs in unit.planes)
    return replace(unit, objects=now(unit.objects), planes=planes)


def _extended(plan: Plan, added: Iterable[Unit]) -> Plan:
    """The plan with further units; a shard among them replaces its earlier units."""
    added = tuple(added)
    anew = {unit.objects[0].uri for unit in added if unit.kind != "raw"}
    kept = tuple(unit for unit in plan.units if unit.objects[0].uri not in anew)
    gone = tuple(unit for unit in plan.units if unit.objects[0].uri in anew)
    return Plan(kept + added, plan.superseded + gone)


def _not_in(plan: Plan, units: Sequence[Unit], planes: Sequence[str]) -> list[Unit]:
    """The units that the plan lacks: files by URI, shards by URI and version.

    Units of a plan know no labels, and of planes those that the network needs: others would be
    fetched for nothing.
    """
    files = {ref.uri for unit in plan.units if unit.kind == "raw" for ref in unit.objects}
    shards = {unit.objects[0] for unit in plan.units if unit.kind != "raw"}
    fresh = []
    for unit in units:
        if unit.kind != "raw":
            fresh += [unit] if unit.objects[0] not in shards else []
            continue
        new = [index for index, ref in enumerate(unit.objects) if ref.uri not in files]
        if new:
            needed = tuple(
                (name, tuple(refs[index] for index in new))
                for name, refs in unit.planes
                if name in planes
            )
            objects = tuple(unit.objects[index] for index in new)
            keys = tuple(unit.keys[index] for index in new)
            fresh.append(Unit("raw", objects, keys=keys, planes=needed))
    return fresh
