"""Which input forms which unit: written down before work starts, and never changed.

The cut of a shard into ranges, and of single files into groups, must outlive new arrivals and other
settings: an image that was planned yesterday stays in its unit, or tomorrow's run would segment it
twice. Plans are numbered, and each run adds at most one, with what is new.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipelines import storage
from pipelines.cutting import UNIT_BYTES
from pipelines.errors import ForeignObjectError, InputError
from pipelines.masks import plan_files
from pipelines.masks.generation import Generation
from pipelines.masks.grouping import UnitLimits, new_units
from pipelines.masks.listing import names_in
from pipelines.sources import Source
from pipelines.storage import ObjectRef
from pipelines.units import Unit

MAX_PLANS = 100_000

_NAME = re.compile(r"(\d{5})\.plan")
_READS = 8


@dataclass(frozen=True)
class Plan:
    """Every unit of a source, its objects pinned to the versions that were seen when planned.

    ``superseded`` are units of shards that have been uploaded anew since, oldest first. ``number``
    is that of the next plan to be written.
    """

    units: tuple[Unit, ...] = ()
    superseded: tuple[Unit, ...] = ()
    number: int = 0

    def extended(self, added: Iterable[Unit]) -> Plan:
        """The plan with those units next; a shard among them replaces its earlier units."""
        added = tuple(added)
        anew = {unit.objects[0].uri for unit in added if unit.kind != "raw"}
        if not anew:
            return Plan(self.units + added, self.superseded, self.number + 1)
        kept = tuple(unit for unit in self.units if unit.objects[0].uri not in anew)
        gone = tuple(unit for unit in self.units if unit.objects[0].uri in anew)
        return Plan(kept + added, self.superseded + gone, self.number + 1)


def plan_units(  # noqa: PLR0913  (five of them have a default that fits most nights)
    source: Source,
    output: str,
    generation: Generation,
    planes: Sequence[str] = (),
    *,
    unit_records: int | None,
    unit_bytes: int = UNIT_BYTES,
    like: str | None = None,
    dry: bool = False,
) -> Plan:
    """The plan of a source under ``output``, extended by what no earlier plan has.

    ``planes`` are those that the generation's network needs beside each image. New files form units
    of up to ``unit_records`` records (None: as many as are fitting) and ``unit_bytes`` bytes; what
    was planned is not cut anew.
    ``like`` is the id of another generation: if it was made of the same input and planes, the first
    plan takes its cut over, so that the units of both can be compared. ``dry`` writes nothing.
    The first unit that a plan adds is small (`first_unit`).

    Runs that plan at once agree: one of them wins each number, and the others take its plan over.
    Raises InputError if ``output`` holds masks of other input, ForeignObjectError if an earlier
    plan is damaged or missing.
    """
    listed = objects_of(source)
    _claim(source, output, generation, dry=dry)
    limits = UnitLimits(unit_records, unit_bytes)
    plan = load_plan(output, generation.id, listed)

    def append(units: tuple[Unit, ...]) -> bool:
        """Add a plan of these units, or else the one that another run put there meanwhile."""
        nonlocal plan
        uri = plan_uri(output, generation.id, plan.number)
        ours = dry or storage.create(uri, plan_files.encode(units))
        plan = plan.extended(units if ours else _read(uri, listed))
        return ours

    if plan.number == 0 and like is not None:
        adopted = _cut_of(like, source, output, planes, listed)
        if adopted:
            append(adopted)
    while plan.number < MAX_PLANS:
        fresh = new_units(plan.units, plan.superseded, source, planes, limits)
        if not fresh or append(fresh):
            return plan
    raise InputError(
        f"{_folder(output, generation.id)} holds {MAX_PLANS} plans; start a new output"
    )


def load_plan(
    output: str, generation_id: str, listed: Mapping[str, ObjectRef] | None = None
) -> Plan:
    """What is planned of a generation so far; nothing is an empty plan.

    Objects that are equal to one in ``listed``, by URI, are shared with it. Raises
    ForeignObjectError for a plan that is damaged, or missing among others.
    """
    folder = _folder(output, generation_id)
    matches = (_NAME.fullmatch(name) for name in names_in(folder))
    numbers = [int(match[1]) for match in matches if match]
    if numbers != list(range(len(numbers))):
        missing = min(set(range(len(numbers))) - set(numbers))
        raise ForeignObjectError(
            f"{plan_uri(output, generation_id, missing)} is missing, though later plans are there; "
            "put it back, or use another --output: without it input would be segmented twice"
        )
    plan = Plan()
    with ThreadPoolExecutor(_READS) as pool:
        uris = [plan_uri(output, generation_id, number) for number in numbers]
        for uri, data in zip(uris, pool.map(storage.read_bytes, uris), strict=True):
            plan = plan.extended(plan_files.decode(data, uri, _sharing(listed or {})))
    return plan


def caught_up(plan: Plan, output: str, generation_id: str) -> Plan:
    """The plan with what other runs have added to it since; usually nothing, for one request."""
    while storage.stat(uri := plan_uri(output, generation_id, plan.number)) is not None:
        plan = plan.extended(_read(uri, {}))
    return plan


def objects_of(source: Source) -> dict[str, ObjectRef]:
    """Every object of a source that a plan may name, by URI."""
    return {
        ref.uri: ref
        for unit in source.units
        for refs in (unit.objects, *(refs for _, refs in unit.planes))
        for ref in refs
    }


def _folder(output: str, generation_id: str) -> str:
    return storage.join(output, "_fcn", "plan", generation_id)


def plan_uri(output: str, generation_id: str, number: int) -> str:
    """Where a plan stands."""
    return storage.join(_folder(output, generation_id), f"{number:05d}.plan")


def _read(uri: str, listed: Mapping[str, ObjectRef]) -> tuple[Unit, ...]:
    return tuple(plan_files.decode(storage.read_bytes(uri), uri, _sharing(listed)))


def _sharing(listed: Mapping[str, ObjectRef]) -> plan_files.Pinned:
    """Takes the listed object where it is the same version: a million are not held twice."""

    def pinned(uri: str, etag: str, size: int) -> ObjectRef:
        ref = listed.get(uri)
        if ref is not None and ref.etag == etag and ref.size == size:
            return ref
        return ObjectRef(uri, etag, size)

    return pinned


def _claim(source: Source, output: str, generation: Generation, *, dry: bool) -> None:
    """Bind a generation under ``output`` to one input: two might overlap, and double records."""
    uri = _claim_uri(output, generation.id)
    mine = _input_of(source)
    if dry:
        if storage.stat(uri) is None:
            return
    elif storage.create(uri, mine):
        return
    theirs = storage.read_bytes(uri)
    if theirs != mine:
        raise InputError(
            f"{output} holds this model's masks of {theirs.decode()}, not of {mine.decode()}; "
            "another input needs another --output, or records could stand there twice"
        )


def _claim_uri(output: str, generation_id: str) -> str:
    return storage.join(output, "_fcn", "input", f"{generation_id}.json")


def _input_of(source: Source) -> bytes:
    names = {"input": source.uri, "layout": source.layout, "split": source.split}
    return json.dumps(names).encode()


def _cut_of(
    like: str,
    source: Source,
    output: str,
    planes: Sequence[str],
    listed: Mapping[str, ObjectRef],
) -> tuple[Unit, ...]:
    """The units of another generation, or none if it is of other input or other planes."""
    claim = _claim_uri(output, like)
    if storage.stat(claim) is None or storage.read_bytes(claim) != _input_of(source):
        return ()
    units = load_plan(output, like, listed).units
    theirs = {name for unit in units for name, _ in unit.planes}
    raw = any(unit.kind == "raw" for unit in units)
    return units if not raw or theirs == set(planes) else ()
