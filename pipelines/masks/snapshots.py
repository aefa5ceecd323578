"""Snapshots in an output: numbered, each written once and never changed.

    OUTPUT/_fcn/snap/<G>/<20-digit number>.json

A night adds its parts to the newest snapshot of its generation and creates the next number. Of two
that race for a number one creates it; the other reads that and adds its own parts to it, so that
neither loses anything.
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.errors import ForeignObjectError, NotFoundError, StoreError
from pipelines.masks import parts
from pipelines.masks.generation import PartName
from pipelines.masks.snapshot import FIRST_LINE_BYTES, Snapshot, SnapshotPart, Summary, merge
from pipelines.storage import ObjectRef

__all__ = [
    "Snapshot",
    "SnapshotPart",
    "Summary",
    "describe_part",
    "extend",
    "extend_by",
    "latest",
    "load",
    "load_summary",
    "numbers_by_generation",
    "snapshot_uri",
]

TRIES = 100
"""How often a number may be lost to other writers; each time, one of them got on."""

_FILE = re.compile(r"(?P<sequence>\d{20})\.json")
_DAMAGE = (AttributeError, KeyError, TypeError, ValueError)


def latest(output: str, generation_id: str) -> Snapshot | None:
    """The newest snapshot of a generation, or None if it has none yet."""
    numbers = _numbers(output, generation_id)
    return load(output, generation_id, numbers[-1]) if numbers else None


def load(output: str, generation_id: str, sequence: int) -> Snapshot:
    """One snapshot. Raises NotFoundError, or ForeignObjectError if it is none of ours."""
    uri = snapshot_uri(output, generation_id, sequence)
    try:
        data = storage.read_bytes(uri)
    except NotFoundError as error:
        raise _no_such(output, generation_id, sequence) from error
    try:
        snapshot = Snapshot.from_json(data)
        _check_place(snapshot, generation_id, sequence)
    except _DAMAGE as error:
        raise _not_ours(uri, error) from error
    return snapshot


def load_summary(output: str, generation_id: str, sequence: int) -> Summary:
    """What one snapshot adds up to; only its first line is fetched. Raises as `load` does."""
    uri = snapshot_uri(output, generation_id, sequence)
    ref = storage.stat(uri)
    if ref is None:
        raise _no_such(output, generation_id, sequence)
    with storage.open_ranged(ref) as file:
        line, _, _ = file.read(FIRST_LINE_BYTES).partition(b"\n")
    try:
        summary = Summary.from_json(line)
        _check_place(summary, generation_id, sequence)
    except _DAMAGE as error:
        raise _not_ours(uri, error) from error
    return summary


def numbers_by_generation(output: str) -> dict[str, list[int]]:
    """The numbers of all snapshots, ascending, by generation id."""
    found = defaultdict(list)
    for generation, number in _listed(storage.join(output, "_fcn", "snap")):
        found[generation].append(number)
    return {generation: sorted(numbers) for generation, numbers in sorted(found.items())}


Change = tuple[Iterable[SnapshotPart], Collection[str]]
"""Parts to add, and ids of units whose part is to leave."""


def extend(
    output: str,
    generation_id: str,
    added: Iterable[SnapshotPart],
    run: str,
    *,
    drop: Collection[str] = (),
) -> Snapshot:
    """Merge parts into a generation's newest snapshot, under the next number.

    If nothing is new, the newest snapshot is returned as it is. Whatever other writers do
    meanwhile, every added part stands in ``parts`` or in ``replaced`` afterwards; `merge` says in
    which, and what ``drop`` means. ``run`` is the id of the run that adds.
    """
    change = tuple(added), drop
    return extend_by(output, generation_id, lambda _: change, run)


def extend_by(
    output: str, generation_id: str, change: Callable[[Snapshot | None], Change], run: str
) -> Snapshot:
    """`extend` by a change that follows from the snapshot that it is made to.

    ``change`` is called with the newest snapshot, and again whenever another writer was faster. So
    what it looks up in the store is never older than the snapshot that it changes.
    """
    for _ in range(TRIES):
        before = latest(output, generation_id)
        merged, replaced = merge(before, *change(before))
        if before and (before.parts, before.replaced) == (merged, replaced):
            return before
        snapshot = Snapshot(
            generation=generation_id,
            sequence=before.sequence + 1 if before else 1,
            parts=merged,
            created_by=run,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            replaced=replaced,
        )
        uri = snapshot_uri(output, generation_id, snapshot.sequence)
        if storage.create(uri, snapshot.to_json()):
            return snapshot
    raise StoreError(
        f"{TRIES} snapshots beside {snapshot_uri(output, generation_id, 1)} were made by others "
        "while this one waited; find out what writes there without end, then run again"
    )


def describe_part(part: str | ObjectRef) -> SnapshotPart:
    """What a snapshot says of a part, from all its bytes, with the page checksums compared.

    Raises NotFoundError if there is none, StoreError if it is damaged, ForeignObjectError if it
    is not what its name and folder say.
    """
    ref = storage.stat(part) if isinstance(part, str) else part
    if ref is None:
        raise NotFoundError(f"there is no part {part}")
    data = storage.read_bytes(ref.uri, etag=ref.etag)
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        groups = range(file.num_row_groups)
        rows = sum(file.read_row_group(index).num_rows for index in groups)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"{ref.uri} does not read back ({error}); move it away and segment again, "
            "which makes it anew"
        ) from error
    name, stats = _check_identity(ref.uri, parts.described(file.metadata), rows)
    return SnapshotPart(
        name=name,
        etag=ref.etag,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        rows=rows,
        errors=stats.errors,
        transient=stats.transient,
        class_pixels=stats.class_pixels,
        constant=stats.constant,
    )


def snapshot_uri(output: str, generation_id: str, sequence: int) -> str:
    """Where a snapshot stands."""
    return storage.join(output, "_fcn", "snap", generation_id, f"{sequence:020d}.json")


def _numbers(output: str, generation_id: str) -> list[int]:
    folder = storage.join(output, "_fcn", "snap", generation_id)
    return sorted(number for _, number in _listed(folder))


def _listed(folder: str) -> list[tuple[str, int]]:
    """Generation and number of every snapshot below a folder."""
    try:
        names = [ref.uri.split("/")[-2:] for ref in storage.list_objects(folder)]
    except NotFoundError:
        return []
    matches = [(generation, _FILE.fullmatch(file)) for generation, file in names]
    return [(generation, int(match["sequence"])) for generation, match in matches if match]


def _check_identity(
    uri: str, described: parts.Described, rows: int
) -> tuple[PartName, parts.Stats]:
    folder, file = uri.split("/")[-2:]
    name, identity, stats = PartName.parse(file), described.identity, described.stats
    if name is None or identity is None or stats is None:
        raise ForeignObjectError(
            f"{uri} is not a part of masks that this version wrote; it was left untouched: "
            "move it away"
        )
    says = (f"gen={identity['generation']}", identity["unit"], identity["version"])
    wanted = (folder, name.unit, name.version)
    if says != wanted or identity["records"] != rows:
        raise ForeignObjectError(
            f"{uri} has {rows} rows and says it is {identity}, which does not fit its name; it was "
            "left untouched: move it away"
        )
    return name, stats


def _check_place(found: Snapshot | Summary, generation_id: str, sequence: int) -> None:
    if (found.generation, found.sequence) != (generation_id, sequence):
        raise ValueError(f"it says it is number {found.sequence} of {found.generation}")


def _no_such(output: str, generation_id: str, sequence: int) -> NotFoundError:
    there = ", ".join(map(str, _numbers(output, generation_id))) or "none"
    return NotFoundError(
        f"{output} has no snapshot {sequence} of generation {generation_id}; there are: {there}"
    )


def _not_ours(uri: str, error: Exception) -> ForeignObjectError:
    return ForeignObjectError(
        f"{uri} is not a snapshot that this version can read ({error}); it was left untouched: "
        "move it away if it is damaged or not ours"
    )
