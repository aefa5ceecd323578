"""What lies in an output beside the parts that count: foreign objects, strays, leftovers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.errors import ForeignObjectError
from pipelines.masks import snapshots
from pipelines.masks.census import Census, Found
from pipelines.masks.generation import PartName
from pipelines.masks.snapshot import Snapshot
from pipelines.masks.standing import Planned, Standing, parts_by_unit, standing
from pipelines.masks.verdict import Verdict

AT_WORK_SECONDS = 24 * 3600.0
"""Temporary files, probes and lists of removals that are younger belong to somebody at work."""

_PASSING = {
    "temporary": "a file that was being written when its writer was killed",
    "probe": "what a preflight left",
    "removal": "jobs/gc.py was killed while it removed; run it again",
}


def note_leftovers(
    census: Census,
    planned: Mapping[str, Planned],
    verified: Sequence[Snapshot],
    verdict: Verdict,
) -> list[Found]:
    """Note every object that is foreign or a stray; parts of the verified snapshots are neither.

    Returns the parts of the verified generations that wait for a snapshot, of which nothing is
    noted.
    """
    used = {(one.generation, part.name) for one in verified for part in one.parts}
    newest = {name: _newest(census, name, verified, verdict) for name in planned}
    waiting = []
    for found in census.objects:
        uri = found.ref.uri
        if found.kind == "foreign":
            verdict.note("foreign", uri, "its name is none of ours")
        elif found.kind in _PASSING and found.age > AT_WORK_SECONDS:
            verdict.note("stray", uri, _PASSING[found.kind])
        elif found.name and found.kind == "part" and (found.generation, found.name) not in used:
            stands = _note_part(found, found.name, newest[found.generation], planned, verdict)
            if stands == "waiting" and any(found.generation == one.generation for one in verified):
                waiting.append(found)
    return waiting


def _note_part(
    found: Found,
    name: PartName,
    newest: Mapping[str, PartName],
    planned: Mapping[str, Planned],
    verdict: Verdict,
) -> Standing:
    stands = standing(name, newest, planned[found.generation])
    if stands == "unknown":
        text = f"no plan of generation {found.generation} knows its unit"
        verdict.note("foreign", found.ref.uri, text)
    elif stands == "stray":
        other = newest.get(name.unit)
        text = f"{other.file if other else 'another cut of its shard'} stands in its place"
        verdict.note("stray", found.ref.uri, text)
    return stands


def _newest(
    census: Census, generation: str, verified: Sequence[Snapshot], verdict: Verdict
) -> dict[str, PartName]:
    """The part of every unit in a generation's newest snapshot."""
    numbers = census.sequences(generation)
    if not numbers:
        return {}
    for one in verified:
        if (one.generation, one.sequence) == (generation, numbers[-1]):
            return parts_by_unit(one)
    try:
        return parts_by_unit(snapshots.load(census.output, generation, numbers[-1]))
    except ForeignObjectError as error:
        uri = snapshots.snapshot_uri(census.output, generation, numbers[-1])
        verdict.note("damaged", uri, str(error))
        return {}
