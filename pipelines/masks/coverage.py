"""Whether every record of an input stands exactly once among the rows of some parts.

Single files are compared by URI, images inside NYUDv2's file by URI and key, shards by ranges of
rows. Texts are compared by their hashes, 8 bytes a record, so that a hundred million fit in memory.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.masks.generation import PartName, part_name
from pipelines.masks.verdict import AT_MOST, Kind, Verdict
from pipelines.sources import Source
from pipelines.storage import ObjectRef
from pipelines.units import Unit

Hashes = npt.NDArray[np.uint64]

_IDENTITY = re.compile(
    r"parquet (?P<parquet>.+)#(?P<start>\d+)-\d*|tar (?P<tar>.+)"
    r"|(?P<kind>raw|nyud-mat) .*\+-?\d+ [0-9a-f]+",
    re.DOTALL,
)
"""What `Unit.identity` writes."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """Which input the rows of a part stand for."""

    shard: str = ""
    """URI of a Parquet or tar shard, of which the part has rows ``start`` .. ``stop`` - 1."""
    start: int = 0
    stop: int = 0
    name: PartName
    records: Hashes
    """Of single files: hashes of the records."""
    versions: Hashes
    """Of single files: hashes of the records in their versions."""


def held_by(identity: str, name: PartName, rows: Sequence[dict[str, Any]]) -> Held | None:
    """What a part holds by the identity of its unit and its rows; None if that is not one."""
    match = _IDENTITY.fullmatch(identity)
    if match is None:
        return None
    if match["kind"] is None:
        start = int(match["start"] or 0)
        shard = match["parquet"] or match["tar"]
        nothing = hashes(())
        return Held(
            shard=shard,
            start=start,
            stop=start + len(rows),
            name=name,
            records=nothing,
            versions=nothing,
        )
    keyed = match["kind"] == "nyud-mat"
    records = [_record(row["uri"], row["key"] if keyed else None) for row in rows]
    versions = [f"{record}\n{row['etag']}" for record, row in zip(records, rows, strict=True)]
    return Held(name=name, records=hashes(records), versions=hashes(versions))


def cover(source: Source, held: Iterable[Held], verdict: Verdict) -> None:
    """Compare an input with what parts hold, and note what is missing, twice, outdated or gone."""
    held = list(held)
    verdict.input_records = 0
    _cover_files(source, [one for one in held if not one.shard], verdict)
    _cover_shards(source, [one for one in held if one.shard], verdict)


def hashes(texts: Iterable[str]) -> Hashes:
    """64 bits of each text: of 100 million, two would agree by chance once in 3,700 tries."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, np.uint64)


def _record(uri: str, key: str | None) -> str:
    return uri if key is None else f"{uri}\n{key}"


def _records(source: Source) -> Iterator[tuple[str, str]]:
    """The single records of a source, without and with their versions, in order."""
    for unit in source.units:
        if unit.kind == "raw":
            for ref in unit.objects:
                yield ref.uri, f"{ref.uri}\n{ref.etag}"
        elif unit.kind == "nyud-mat":
            ref = unit.objects[0]
            for key in unit.keys:
                record = _record(ref.uri, key)
                yield record, f"{record}\n{ref.etag}"


def _cover_files(source: Source, held: Sequence[Held], verdict: Verdict) -> None:
    wanted = hashes(record for record, _ in _records(source))
    versions = hashes(version for _, version in _records(source))
    have = np.concatenate([hashes(()), *(one.records for one in held)])
    have_versions = np.concatenate([hashes(()), *(one.versions for one in held)])
    # The records by hash, each once: its first place in the source, how often it stands there.
    values, first, count = np.unique(wanted, return_index=True, return_counts=True)
    found, times = np.unique(have, return_counts=True)
    stands = np.zeros(len(values), np.int64)
    known = np.isin(values, found)
    stands[known] = times[np.searchsorted(found, values[known])]
    outdated = (stands > 0) & ~np.isin(versions, have_versions)[first]
    notes: tuple[tuple[Kind, npt.NDArray[np.bool_], str], ...] = (
        ("missing", stands < count, "no row is of it; run jobs/segment.py again"),
        ("twice", stands > count, "several rows are of it"),
        ("outdated", outdated, "its row was made from another version"),
    )
    for kind, chosen, text in notes:
        _note_files(verdict, kind, source, np.sort(first[chosen]), text)
    strangers = ~np.isin(found, values)
    if strangers.any():
        text = "rows are of files that are no longer there"
        verdict.note("gone", source.uri, text, int(times[strangers].sum()))
    if (doubled := strangers & (times > 1)).any():
        text = "files that are no longer there have several rows"
        verdict.note("twice", source.uri, text, int(doubled.sum()))
    verdict.input_records = (verdict.input_records or 0) + len(wanted)


def _note_files(
    verdict: Verdict, kind: Kind, source: Source, places: npt.NDArray[np.int64], text: str
) -> None:
    """Note the records at some places of the source, by name as far as names are kept."""
    shown = frozenset(places[:AT_MOST].tolist())
    for place, (record, _) in enumerate(_records(source) if shown else ()):
        if place in shown:
            verdict.note(kind, record.replace("\n", " image "), text)
    if more := len(places) - len(shown):
        verdict.note(kind, source.uri, f"{more} further records: {text}", more)


def _cover_shards(source: Source, held: Sequence[Held], verdict: Verdict) -> None:
    stands: dict[str, list[Held]] = defaultdict(list)
    for one in held:
        stands[one.shard].append(one)
    for ref, known in _shards(source).items():
        parts = sorted(stands.pop(ref.uri, ()), key=lambda one: (one.start, one.stop))
        # Of a tar, or a shard with a broken footer, only its part says how many records it has.
        rows = max((one.stop for one in parts), default=0) if known is None else known
        if known is None and not parts:
            verdict.note("missing", ref.uri, "no part is of this shard")
        _cover_ranges(ref, rows, parts, verdict)
        verdict.input_records = (verdict.input_records or 0) + rows
    for shard, parts in stands.items():
        count = sum(one.stop - one.start for one in parts)
        verdict.note("gone", shard, "rows are of a shard that is no longer there", count)


def _shards(source: Source) -> dict[ObjectRef, int | None]:
    """The shards of a source and how many rows they have, None where only reading it would tell."""
    found: dict[ObjectRef, int | None] = {}
    for unit in source.units:
        if unit.kind in {"tar", "parquet"}:
            shard = unit.objects[0]
            found[shard] = unit.stop and max(found.get(shard) or 0, unit.stop)
    return found


def _cover_ranges(ref: ObjectRef, rows: int, parts: Sequence[Held], verdict: Verdict) -> None:
    """Rows 0 .. ``rows`` - 1 of a shard against the ranges that parts hold, sorted."""
    current = part_name(Unit("tar", (ref,))).version  # which a range of it has as well
    covered = gone = 0
    for one in parts:
        if (end := min(one.start, rows)) > covered:
            text = f"rows {covered} to {end - 1} have no part"
            verdict.note("missing", ref.uri, text, end - covered)
        if (again := min(covered, one.stop) - one.start) > 0:
            text = f"rows {one.start} to {one.start + again - 1} stand in several parts"
            verdict.note("twice", ref.uri, text, again)
        if one.name.version != current:
            text = f"{one.name.file} was made from another version"
            verdict.note("outdated", ref.uri, text, one.stop - one.start)
        gone += max(0, one.stop - max(one.start, covered, rows))
        covered = max(covered, one.stop)
    if covered < rows:
        text = f"rows {covered} to {rows - 1} have no part"
        verdict.note("missing", ref.uri, text, rows - covered)
    if gone:
        text = f"it has {rows} rows now; further ones are no longer there"
        verdict.note("gone", ref.uri, text, gone)
