"""Whether every planned unit has exactly one part in a snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipelines import storage
from pipelines.errors import StoreError
from pipelines.masks.census import Census
from pipelines.masks.snapshot import Snapshot
from pipelines.masks.standing import Planned, objects_of_units
from pipelines.masks.verdict import Verdict

LOOKS_AT_ONCE = 16


def check_units(census: Census, snapshot: Snapshot, planned: Planned, verdict: Verdict) -> None:
    """Note the planned units that have no part in a snapshot, or several.

    A shard that was cut anew may stand in its old cut or in its new one, but not in both.
    """
    stands = Counter(part.name.unit for part in snapshot.parts)
    lies = {name.unit for name in census.parts(snapshot.generation)}
    old_cuts = {
        unit.shard
        for name, unit in planned.superseded.items()
        if stands[name] and name not in planned.units
    }
    for part in snapshot.parts:
        if planned.readable and planned.find(part.name.unit) is None:
            uri = storage.join(census.output, snapshot.file(part))
            verdict.note("foreign", uri, "it is in the snapshot, but no plan knows its unit")
    lost = []
    for name, unit in planned.units.items():
        if stands[name] > 1:
            verdict.note("doubled", unit.identity, f"it has {stands[name]} parts in the snapshot")
        elif stands[name] and unit.shard in old_cuts:
            verdict.note("doubled", unit.identity, "its shard stands there in another cut, too")
        elif stands[name]:
            continue
        elif unit.shard in old_cuts:
            text = "its shard was uploaded anew and cut anew; the rows of the old cut stand"
            verdict.note("outdated", unit.identity, text)
        elif name in lies:
            text = "its part is in no snapshot yet, or in a newer one; run jobs/segment.py again"
            verdict.note("unpublished", unit.identity, text)
        else:
            lost.append(name)
    _note_lost(census, snapshot.generation, planned, lost, verdict)


def _note_lost(
    census: Census, generation: str, planned: Planned, lost: Sequence[str], verdict: Verdict
) -> None:
    """Note units without any part; those of which no input is left cannot have one."""
    tries: Counter[str] = Counter()
    for failed, runs in census.failures(generation).items():
        tries[failed.unit] += runs
    objects = objects_of_units(census, generation, frozenset(lost)) if lost else {}
    with ThreadPoolExecutor(LOOKS_AT_ONCE) as pool:
        gone = pool.map(_all_gone, [objects[name] for name in lost])
        for name, vanished in zip(lost, gone, strict=True):
            where = planned.units[name].identity
            if vanished:
                verdict.note("gone", where, "all of its input was deleted before it was done")
            else:
                text = f"it has no part; {tries[name]} runs could not do it"
                verdict.note("lost", where, text)


def _all_gone(uris: Collection[str]) -> bool:
    """Whether no object is there; an input that may not be looked at counts as there."""
    try:
        return all(storage.stat(uri) is None for uri in uris)
    except StoreError:
        return False
