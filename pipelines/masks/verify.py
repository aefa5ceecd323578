"""Proof that what is published is whole: every record once, every byte as it was written.

    verified = verify(output, progress=print)

For each snapshot that is verified, every listed part is read whole: its SHA-256, its page
checksums, its rows against its footer, its plan and the snapshot, some masks or all of them decoded
and counted. Every planned unit must have one part in it. Parts of the same generation that wait for
the next snapshot are read, too. Everything else that lies in the output is looked at by name. With
the input, every record of that must stand exactly once.

Memory is bounded by `HELD_BYTES` of parts at a time and some 30 bytes for every record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from pipelines import storage
from pipelines.errors import ForeignObjectError, NotFoundError
from pipelines.masks import head, snapshots
from pipelines.masks.census import Census, Found, take_census
from pipelines.masks.coverage import cover
from pipelines.masks.leftovers import note_leftovers
from pipelines.masks.part_check import Budget, Checked, Expected, check_part
from pipelines.masks.repeated_keys import note_repeated_keys
from pipelines.masks.snapshot import Snapshot
from pipelines.masks.standing import Planned, model_of, read_planned
from pipelines.masks.unit_check import check_units
from pipelines.masks.verdict import Kind, Verdict
from pipelines.masks.waiting import Waiting, check_waiting
from pipelines.sources import Source

ALL = "all"
"""In place of a generation: the newest snapshot of every one, and the published one."""

PARTS_AT_ONCE = 16
HELD_BYTES = 512 << 20
MASKS_OF_A_PART = 2
"""Masks that are decoded of every part, unless all are."""

SECONDS_BETWEEN_LINES = 2.0

Progress = Callable[[str], None]


def verify(
    output: str,
    *,
    generation: str | None = None,
    source: Source | None = None,
    deep: bool = False,
    progress: Progress,
) -> Verdict:
    """Verify the published snapshot, the newest one of a generation, or with `ALL` all of these.

    With ``source`` every record of it must stand exactly once in what is verified. ``deep`` decodes
    every mask. Raises NotFoundError if nothing is published or there is no such snapshot, and
    StoreError if the store does not answer; everything else that is wrong is in the verdict.
    """
    output = storage.parse_uri(output)
    census = take_census(output)
    verdict = Verdict(output=output)
    chosen = _chosen(census, generation, verdict)
    planned = {name: _planned(census, name, verdict) for name in census.generations}
    models = {name: _model(census, name, verdict) for name, _ in chosen}
    verdict.units = sum(len(planned[name].units) for name in models)
    checked: dict[tuple[str, str], Checked] = {}
    verified = [one for one in (_load(output, *names, verdict) for names in chosen) if one]
    for snapshot in verified:
        verdict.snapshots.append(f"{snapshot.generation}/{snapshot.sequence}")
        expected = _expected(
            census, snapshot, planned[snapshot.generation], models[snapshot.generation], deep
        )
        _check([one for one in expected if one.key not in checked], checked, verdict, progress)
        its_parts = [checked[one.key] for one in expected]
        check_units(census, snapshot, planned[snapshot.generation], verdict)
        note_repeated_keys(verdict.snapshots[-1], its_parts, verdict)
        if source is not None:
            cover(source, (one.held for one in its_parts if one.held), verdict)
    waiting = note_leftovers(census, planned, verified, verdict)
    _check_waiting(_waiting(waiting, verified, planned, models, deep), verdict)
    return verdict


def _chosen(census: Census, generation: str | None, verdict: Verdict) -> list[tuple[str, int]]:
    """Generation and number of the snapshots to verify, each once."""
    chosen: set[tuple[str, int]] = set()
    if generation in (None, ALL):
        try:
            published = head.read(census.output)
        except ForeignObjectError as error:
            verdict.note("damaged", head.head_uri(census.output), str(error))
            return []
        if published is not None:
            chosen.add((published.generation, published.sequence))
    for name in census.generations:
        if generation in (name, ALL) and (numbers := census.sequences(name)):
            chosen.add((name, numbers[-1]))
    if not chosen:
        raise NotFoundError(_nothing_to_verify(census, generation))
    return sorted(chosen)


def _nothing_to_verify(census: Census, generation: str | None) -> str:
    what = "nothing published" if generation in (None, ALL) else f"no snapshot of {generation}"
    there = sorted({found.generation for found in census.of("snapshot")})
    if not there:
        return (
            f"{census.output} has {what}, for it has no snapshot yet: its runs were ended before "
            "they could publish, or the quality gate kept back what they made. Run jobs/segment.py "
            "again: it goes on from there, or says why not"
        )
    return (
        f"{census.output} has {what}; there are snapshots of the generations {', '.join(there)}, "
        f"of which one or {ALL} can be named"
    )


def _planned(census: Census, generation: str, verdict: Verdict) -> Planned:
    try:
        return read_planned(census, generation)
    except ForeignObjectError as error:
        verdict.note("damaged", f"the plans of generation {generation}", str(error))
        return Planned(readable=False)


def _model(census: Census, generation: str, verdict: Verdict) -> str | None:
    try:
        return model_of(census, generation)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        verdict.note("damaged", f"generation {generation}", str(error))
        return None


def _load(output: str, generation: str, number: int, verdict: Verdict) -> Snapshot | None:
    try:
        return snapshots.load(output, generation, number)
    except (NotFoundError, ForeignObjectError) as error:
        kind: Kind = "lost" if isinstance(error, NotFoundError) else "damaged"
        verdict.note(kind, snapshots.snapshot_uri(output, generation, number), str(error))
        return None


def _expected(
    census: Census, snapshot: Snapshot, planned: Planned, model: str | None, deep: bool
) -> list[Expected]:
    """What each part of a snapshot must be."""
    found = census.parts(snapshot.generation)
    return [
        Expected(
            uri=storage.join(census.output, snapshot.file(part)),
            found=found[part.name].ref if part.name in found else None,
            part=part,
            generation=snapshot.generation,
            model=model,
            records=unit.records if (unit := planned.find(part.name.unit)) else None,
            masks=None if deep else MASKS_OF_A_PART,
        )
        for part in snapshot.parts
    ]


def _check(
    expected: Sequence[Expected],
    checked: dict[tuple[str, str], Checked],
    verdict: Verdict,
    progress: Progress,
) -> None:
    """Check parts, in parallel, and add what was found to ``checked`` and to the verdict."""
    check = partial(check_part, budget=Budget(HELD_BYTES))
    said = time.monotonic()
    with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
        for one, found in zip(expected, pool.map(check, expected), strict=True):
            checked[one.key] = found
            for kind, text in found.faults:
                verdict.note(kind, one.uri, text)
            verdict.parts += found.bytes > 0
            verdict.bytes += found.bytes
            verdict.records += found.rows
            verdict.ok += found.ok
            verdict.errors += found.errors
            verdict.masks_decoded += found.masks
            if time.monotonic() - said > SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                progress(
                    f"{verdict.parts} parts, {verdict.records} records, {verdict.bytes:,} bytes "
                    f"verified of {len(expected)} parts"
                )


def _waiting(
    parts: Sequence[Found],
    verified: Sequence[Snapshot],
    planned: Mapping[str, Planned],
    models: Mapping[str, str | None],
    deep: bool,
) -> list[Waiting]:
    """What must be known of parts that wait for a snapshot."""
    stands = {(one.generation, part.name.unit) for one in verified for part in one.parts}
    return [
        Waiting(
            ref=found.ref,
            generation=found.generation,
            model=models[found.generation],
            records=unit.records
            if (unit := planned[found.generation].find(found.name.unit))
            else None,
            masks=None if deep else MASKS_OF_A_PART,
            replaces=(found.generation, found.name.unit) in stands,
        )
        for found in parts
        if found.name
    ]


def _check_waiting(waiting: Sequence[Waiting], verdict: Verdict) -> None:
    check = partial(check_waiting, budget=Budget(HELD_BYTES))
    with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
        for one, noted in zip(waiting, pool.map(check, waiting), strict=True):
            for kind, text in noted:
                verdict.note(kind, one.ref.uri, text)
