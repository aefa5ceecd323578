"""What a generation has of its own: its planned units, and where a part stands among the others."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from pipelines import storage
from pipelines.errors import ForeignObjectError
from pipelines.masks import plan_files
from pipelines.masks.census import Census, Found
from pipelines.masks.generation import PartName, part_name, short_hash
from pipelines.masks.plans import plan_uri
from pipelines.masks.snapshot import Snapshot
from pipelines.units import Unit

Standing = Literal["current", "waiting", "stray", "unknown"]


@dataclass(frozen=True, slots=True)
class PlannedUnit:
    """What must be known of a planned unit; a million references to objects are not kept."""

    identity: str
    version: str
    records: int | None
    shard: str
    """URI of the shard, empty for single files."""


@dataclass
class Planned:
    """The units of a generation's plans by id.

    ``superseded`` are those of shards that a later plan has cut anew: the parts of one cut count.
    Of plans that could not be read nothing is known, and every unit may be in them.
    """

    units: dict[str, PlannedUnit] = field(default_factory=dict)
    superseded: dict[str, PlannedUnit] = field(default_factory=dict)
    readable: bool = True

    def extend(self, added: Mapping[str, PlannedUnit]) -> None:
        """Add a plan; a shard in it replaces the shard's earlier units."""
        anew = {unit.shard for unit in added.values()} - {""}
        gone = [name for name, unit in self.units.items() if unit.shard in anew]
        self.superseded |= {name: self.units.pop(name) for name in gone}
        self.units |= added

    def find(self, unit: str) -> PlannedUnit | None:
        """A unit that was ever planned."""
        return self.units.get(unit) or self.superseded.get(unit)

    @cached_property
    def cuts(self) -> dict[str, list[str]]:
        """By URI, the units of the present cut of every shard. For a plan that is complete."""
        found: dict[str, list[str]] = {}
        for name, unit in self.units.items():
            if unit.shard:
                found.setdefault(unit.shard, []).append(name)
        return found


def read_planned(census: Census, generation: str) -> Planned:
    """The units of all plans of a generation.

    Raises ForeignObjectError for a plan that is damaged, or missing among others.
    """
    planned = Planned()
    for number, found in enumerate(census.of("plan", generation)):
        if found.ref.uri != plan_uri(census.output, generation, number):
            uri = plan_uri(census.output, generation, number)
            raise ForeignObjectError(f"{uri} is missing, though later plans are there")
        planned.extend({name: _brief(unit) for name, unit in _units(found)})
    return planned


def objects_of_units(
    census: Census, generation: str, wanted: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """The URIs that some planned units refer to, by unit, as last planned."""
    return {
        name: tuple(ref.uri for ref in unit.objects)
        for found in census.of("plan", generation)
        for name, unit in _units(found)
        if name in wanted
    }


def _units(plan: Found) -> Iterator[tuple[str, Unit]]:
    for unit in plan_files.decode(storage.read_bytes(plan.ref.uri), plan.ref.uri):
        yield part_name(unit).unit, unit


def _brief(unit: Unit) -> PlannedUnit:
    shard = "" if unit.kind == "raw" else unit.objects[0].uri
    return PlannedUnit(unit.identity, part_name(unit).version, unit.records, shard)


def standing(name: PartName, newest: Mapping[str, PartName], planned: Planned) -> Standing:
    """Where a part stands among those of its generation.

    ``newest`` has the part of every unit in the generation's newest snapshot.

    ``current``: it is there. ``waiting``: it may be in the next one. Its unit has no part yet, or
    it is a later try at the same version, or of the version of a shard that was planned last.
    ``stray``: another part has its place, or another cut of its shard stands as a whole.
    ``unknown``: no plan has its unit, so that it is none of ours.
    """
    unit = planned.find(name.unit)
    if unit is None and planned.readable:
        return "unknown"
    current = newest.get(name.unit)
    if current is not None:
        if current == name:
            return "current"
        if current.version == name.version:
            return "waiting" if current.retry < name.retry else "stray"
        wanted = unit is not None and unit.shard and name.version == unit.version
        return "waiting" if wanted else "stray"
    if unit is None or name.unit in planned.units:
        return "waiting"
    return "stray" if all(other in newest for other in planned.cuts[unit.shard]) else "waiting"


def parts_by_unit(snapshot: Snapshot | None) -> dict[str, PartName]:
    """The part of every unit in a snapshot, none without one."""
    return {part.name.unit: part.name for part in snapshot.parts} if snapshot else {}


def model_of(census: Census, generation: str) -> str:
    """The digest of a generation's model, from its record.

    Raises ValueError if there is none, or if it is not what the generation's id was made of.
    """
    records = census.of("generation", generation)
    if not records:
        raise ValueError("there is no record of what it was made of")
    fields = json.loads(storage.read_bytes(records[0].ref.uri))
    made_of = {name: value for name, value in fields.items() if name != "id"}
    if short_hash(json.dumps(made_of, sort_keys=True)) != generation or fields["id"] != generation:
        raise ValueError("its record does not give its id")
    return str(fields["model"])
