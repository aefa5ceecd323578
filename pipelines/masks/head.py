"""HEAD: which snapshot of an output is published, and when that may change.

    OUTPUT/_fcn/HEAD.json

is a pointer that is swapped as a whole; the snapshots are the truth. A night moves it forward to
its own snapshot unless readers would lose units by that. By hand it can be put on any snapshot,
which is how a night or a model is rolled back, and be held there.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from dataclasses import asdict, dataclass

from pipelines import storage
from pipelines.errors import (
    ChangedError,
    ForeignObjectError,
    IncompleteError,
    StoreError,
)
from pipelines.masks import condemned, snapshots
from pipelines.masks.snapshot import Snapshot

TRIES = 20
"""How often another writer may move the pointer between our look and our swap."""
SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Head:
    """The published snapshot."""

    generation: str
    sequence: int
    held: bool = False
    """Put there by hand, to stay: nights leave it alone."""

    def __str__(self) -> str:
        return f"snapshot {self.sequence} of generation {self.generation}"


def head_uri(output: str) -> str:
    """Where the pointer stands."""
    return storage.join(output, "_fcn", "HEAD.json")


def read(output: str) -> Head | None:
    """The published snapshot, or None if nothing was published yet."""
    head, _ = _read(output)
    return head


def move(output: str, to: Head, *, from_: Head | None) -> bool:
    """Point to ``to`` if the pointer stands at ``from_`` (None: if there is none yet).

    True if it stands at ``to`` afterwards, also if another writer had put it there. False if it
    stands elsewhere, untouched. Raises NotFoundError if there is no such snapshot.
    """
    now, etag = _read(output)
    condemned.refuse_snapshot(output, to.generation, to.sequence)
    if now == to:
        return True
    if now != from_:
        return False
    # With the writer's id no two pointers are the same bytes, so that an ETag means one of them.
    data = json.dumps({**asdict(to), "writer": uuid.uuid4().hex}).encode()
    return storage.swap(head_uri(output), data, etag)


def covers(new: Snapshot, old: Snapshot) -> set[str]:
    """The ids of the units that ``old`` has and ``new`` lacks; none if it covers them all."""
    return set(old.units - new.units)


def advance(output: str, snapshot: Snapshot, *, excused: Collection[str] = ()) -> str:
    """Publish a night's snapshot, unless readers would lose units by another generation.

    ``excused`` are units that they may lose. Returns the empty text if readers see the snapshot, or
    a newer one of the same generation, afterwards; otherwise the reason why the pointer stayed.
    """
    to = Head(generation=snapshot.generation, sequence=snapshot.sequence)
    for _ in range(TRIES):
        now = read(output)
        if now and now.generation == to.generation and now.sequence >= to.sequence:
            return ""
        why = _objection(output, now, snapshot, excused)
        if why or move(output, to, from_=now):
            return why
    raise _restless(output)


def publish(output: str, to: Head, *, allow_missing: bool = False) -> set[str]:
    """Put the pointer on any snapshot, forward or back; returns the units that readers lose.

    Raises IncompleteError if there are any, unless ``allow_missing``; NotFoundError if there is no
    such snapshot.
    """
    snapshot = snapshots.load(output, to.generation, to.sequence)
    for _ in range(TRIES):
        now = read(output)
        missing = _missing(output, now, snapshot)
        if missing and not allow_missing:
            raise IncompleteError(
                f"{to} lacks {len(missing)} of the units that are published now, {now}, such as "
                f"{_some(missing)}; nothing was changed. --allow-missing publishes it all the same"
            )
        if move(output, to, from_=now):
            return missing
    raise _restless(output)


def _objection(output: str, now: Head | None, snapshot: Snapshot, excused: Collection[str]) -> str:
    """Why a night may not move the pointer; empty if it may."""
    if now is None:
        return ""
    if now.held:
        return f"{now} was published by hand with --hold; publish another by hand to release it"
    if now.generation == snapshot.generation:
        return ""
    missing = _missing(output, now, snapshot) - set(excused)
    if not missing:
        return ""
    return (
        f"{now} stays published: {len(missing)} of its units have no part in generation "
        f"{snapshot.generation} yet, such as {_some(missing)}"
    )


def _missing(output: str, now: Head | None, snapshot: Snapshot) -> set[str]:
    if now is None:
        return set()
    return covers(snapshot, snapshots.load(output, now.generation, now.sequence))


def _read(output: str) -> tuple[Head | None, str | None]:
    """The pointer and the version of its object."""
    uri = head_uri(output)
    for _ in range(TRIES):
        ref = storage.stat(uri)
        if ref is None:
            return None, None
        try:
            return _parse(storage.read_bytes(uri, etag=ref.etag), uri), ref.etag
        except ChangedError:
            continue  # it was moved between the two requests
    raise _restless(output)


def _parse(data: bytes, uri: str) -> Head:
    try:
        value = json.loads(data)
        return Head(
            generation=str(value["generation"]),
            sequence=int(value["sequence"]),
            held=bool(value.get("held", False)),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ForeignObjectError(
            f"{uri} is not a pointer to a snapshot ({error}); it was left untouched: move it away, "
            "then publish a snapshot by hand"
        ) from error


def _some(units: set[str]) -> str:
    return ", ".join(sorted(units)[:SHOWN])


def _restless(output: str) -> StoreError:
    return StoreError(
        f"{head_uri(output)} was moved by others {TRIES} times while this one tried; find out what "
        "writes there without end, then run again"
    )
