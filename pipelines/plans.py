"""Which raw objects form which unit: written down before work starts, and never changed.

A shard is its own unit. Single image files are grouped, and the grouping must outlive new arrivals:
an image that came yesterday must stay in its unit, or tomorrow's run would segment it twice. So a
plan lists groups of URIs, plans are numbered, and each run adds at most one with what is new.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from pipelines import storage
from pipelines.errors import InputError
from pipelines.generation import Generation, short_hash
from pipelines.sources import Source
from pipelines.storage import ObjectRef
from pipelines.units import Unit

MAX_PLANS = 100_000


def planned_units(source: Source, output: str, generation: Generation) -> tuple[Unit, ...]:
    """The source's units, with raw objects grouped as first planned and new ones added.

    An object of an earlier plan that is gone keeps its place, with an empty etag and size -1, so
    that its absence is reported. Two runs that plan at once agree: one of them wins each number.
    """
    if any(unit.kind != "raw" for unit in source.units):
        return source.units
    folder = storage.join(
        output, "_fcn", "plan", generation.id, short_hash(storage.parse_uri(source.uri))
    )
    listed = {
        ref.uri: (key, ref)
        for unit in source.units
        for key, ref in zip(unit.keys, unit.objects, strict=True)
    }
    groups: list[list[tuple[str, str]]] = []
    for number in range(MAX_PLANS):
        uri = storage.join(folder, f"{number:05d}.json")
        if storage.stat(uri) is None:
            planned = {object_uri for group in groups for _, object_uri in group}
            fresh = list(_fresh_groups(source.units, planned))
            if not fresh or storage.create(uri, json.dumps(fresh).encode()):
                return tuple(_unit(group, listed) for group in [*groups, *fresh])
        groups += [[(key, text) for key, text in group] for group in _read(uri)]
    raise InputError(f"{folder} holds {MAX_PLANS} plans; start a new --output")


def _fresh_groups(units: Sequence[Unit], planned: set[str]) -> Iterator[list[tuple[str, str]]]:
    for unit in units:
        group = [
            (key, ref.uri)
            for key, ref in zip(unit.keys, unit.objects, strict=True)
            if ref.uri not in planned
        ]
        if group:
            yield group


def _read(uri: str) -> list[list[list[str]]]:
    return list(json.loads(storage.read_bytes(uri)))


def _unit(group: Sequence[tuple[str, str]], listed: dict[str, tuple[str, ObjectRef]]) -> Unit:
    gone = [ObjectRef(uri, "", -1) for _, uri in group]
    objects = tuple(
        listed[uri][1] if uri in listed else missing
        for (_, uri), missing in zip(group, gone, strict=True)
    )
    return Unit("raw", objects, keys=tuple(key for key, _ in group))
