"""Removing what no live snapshot needs, so that nothing is lost whatever happens meanwhile.

Live are the published snapshot, the last ones of every generation that is kept, and those that were
the newest one at any time within the grace: who opened a snapshot has at least that long to read
it. What is foreign, the masks of units that are in no snapshot yet, run records and Delta logs are
never removed. `dead` and `strays` say what is.

The order of a removal, and why:

1. List everything, read the pointer with its version, read the snapshots, and decide.
2. Write down what is condemned (`condemned`), before anything of it is deleted.
3. Swap the pointer for itself, in the version of step 1. If it has moved, to an old generation for
   instance, the swap is refused: take the list back and start at 1. Whoever looked at the pointer
   before this step and has not moved it yet is refused from now on, looks again, and finds the
   list. So a condemned snapshot is not published, and a published one not condemned.
4. List again. If a generation has a new snapshot, or anything else is new in one that is to go,
   take the list back and start at 1. Where a condemned part might be taken up by a night, since it
   would fit the input again, take the next number of the generation's snapshots, with the same
   parts: a night that is about to create that number has to look again, and finds the list.
5. Delete: snapshots before parts, so that what is named is there; of a whole generation its plans
   backwards and its record last, so that the next removal still knows what it is. Each object only
   in the version of step 1.
6. Take the list back.

Killed anywhere, it leaves an output in which every published snapshot is whole, and the next
removal deletes the rest. Steps 3 and 4 need `head.move` and a night's `snapshots.extend` to call
`condemned.refuse_snapshot` and `condemned.refuse_parts`.

What the pointer was on before its last move is not known. Therefore no generation goes while the
published one is younger than the grace. Only who reads a snapshot beyond the last ones that was
published by hand, and is published no more, can lose its files sooner.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import get_args

from pipelines import storage
from pipelines.errors import ChangedError, StoreError
from pipelines.masks import condemned, head, snapshots
from pipelines.masks.census import take_census
from pipelines.masks.head import Head
from pipelines.masks.retention import Doomed, Keep, Reason, Removal, decide
from pipelines.storage import ObjectRef

TRIES = 10
"""How often others may change the output between the look at it and the removal."""

DELETES_AT_ONCE = 16
SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a removal did, or would do."""

    removed: bool
    doomed: tuple[Doomed, ...]
    refused: tuple[str, ...] = ()
    """Of them, URIs where another version stood than was looked at; they were left."""
    foreign: tuple[str, ...] = ()
    """URIs of objects that are none of ours, which are only named."""

    def to_text(self) -> str:
        """A table for a terminal: how much of what, and the first names."""
        lines = [f"{'removed' if self.removed else 'may go':<16}{'objects':>10}{'bytes':>18}"]
        for reason in get_args(Reason):
            refs = [one.found.ref for one in self.doomed if one.reason == reason]
            size = sum(ref.size for ref in refs)
            lines.append(f"{reason:<16}{len(refs):>10,}{size:>18,}{_shown(refs)}")
        for name, uris in (("changed, left", self.refused), ("foreign, left", self.foreign)):
            if uris:
                lines.append(f"{name:<16}{len(uris):>10,}  {', '.join(uris[:SHOWN])}")
        return "\n".join(lines)


def sweep(
    output: str, keep: Keep, *, remove: bool = False, progress: Callable[[str], None]
) -> Swept:
    """Find what nobody needs, and with ``remove`` delete it, in the order above.

    Raises as `decide`; StoreError if the output never stands still, or a deletion fails. Then it
    can be called again.
    """
    output = storage.parse_uri(output)
    for _ in range(TRIES):
        removal = decide(output, keep)
        foreign = tuple(found.ref.uri for found in removal.census.of("foreign"))
        if not remove or not removal.doomed:
            return Swept(removed=remove, doomed=removal.doomed, foreign=foreign)
        listed = condemned.announce(output, removal.condemned)
        if _nothing_moved(output, removal):
            refused = tuple(_delete(removal, progress))
            condemned.withdraw(listed)
            return Swept(removed=True, doomed=removal.doomed, refused=refused, foreign=foreign)
        condemned.withdraw(listed)
        progress("the output has changed meanwhile; looking again")
    raise StoreError(
        f"{output} changed {TRIES} times while it was looked at; nothing was removed. "
        "Run jobs/gc.py again when less is going on",
        transient=True,
    )


def _nothing_moved(output: str, removal: Removal) -> bool:
    """Steps 3 and 4: whether all is as it was when it was decided, and must stay so."""
    doomed = removal.condemned
    if (doomed.generations or doomed.snapshots) and not _fence(output, removal.published):
        return False
    before, now = removal.census, take_census(output)
    if any(before.sequences(name) != now.sequences(name) for name in now.generations):
        return False
    if any(before.refs(name) != now.refs(name) for name in removal.dead):
        return False
    return all(_take_next_number(output, name) for name, _ in sorted(doomed.parts))


def _fence(output: str, published: Head | None) -> bool:
    """Give the pointer another version, if it still points to the same snapshot."""
    uri = head.head_uri(output)
    ref = storage.stat(uri)
    if ref is None:
        return published is None
    try:
        data = storage.read_bytes(uri, etag=ref.etag)
    except ChangedError:
        return False
    value = json.loads(data)
    if published is None or (value["generation"], value["sequence"]) != (
        published.generation,
        published.sequence,
    ):
        return False
    return storage.swap(uri, json.dumps({**value, "writer": uuid.uuid4().hex}).encode(), ref.etag)


def _take_next_number(output: str, generation: str) -> bool:
    """Repeat a generation's newest snapshot under the next number, unless others take that."""
    newest = snapshots.latest(output, generation)
    assert newest is not None, "a part is a stray beside the newest snapshot"
    made = datetime.now(UTC).isoformat(timespec="seconds")
    again = replace(newest, sequence=newest.sequence + 1, created_by="gc", created_at=made)
    return storage.create(
        snapshots.snapshot_uri(output, generation, again.sequence), again.to_json()
    )


def _delete(removal: Removal, progress: Callable[[str], None]) -> Iterator[str]:
    """Step 5; yields the URIs where another version stands."""
    for kind, group in groupby(removal.doomed, key=lambda one: one.found.kind):
        refs = [one.found.ref for one in group]
        progress(f"removing {len(refs)} objects: {kind}")
        # The order of plans counts; of other kinds only that one kind is gone before the next.
        with ThreadPoolExecutor(1 if kind == "plan" else DELETES_AT_ONCE) as pool:
            for ref, gone in zip(refs, pool.map(storage.delete, refs), strict=True):
                if not gone and kind == "snapshot":
                    raise ChangedError(f"{ref.uri} was written anew meanwhile; run again")
                if not gone:
                    yield ref.uri


def _shown(refs: list[ObjectRef]) -> str:
    names = [ref.uri.rsplit("/", 1)[1] for ref in refs[:SHOWN]]
    return f"  {', '.join(names)}{' …' if len(refs) > SHOWN else ''}" if names else ""
