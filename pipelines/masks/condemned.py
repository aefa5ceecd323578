"""What a removal in progress is about to delete, written down first so that nobody takes it up.

    OUTPUT/_fcn/gc/<uuid>.json

lists generations, snapshots and parts. It is there before the first of them is deleted, and until
after the last. Who publishes a snapshot or adds a part to one looks here first, then whether the
thing is there; so it is seen to be condemned, or it is seen to be gone. A list whose writer was
killed stays, and is respected, until another removal finds it a day old.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from dataclasses import dataclass

from pipelines import storage
from pipelines.errors import ForeignObjectError, NotFoundError, StoreError
from pipelines.masks.generation import PartName
from pipelines.masks.listing import names_in

SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Condemned:
    """What is about to be deleted: whole generations, and of others snapshots and parts."""

    generations: frozenset[str] = frozenset()
    snapshots: frozenset[tuple[str, int]] = frozenset()
    """Generation and number."""
    parts: frozenset[tuple[str, str]] = frozenset()
    """Generation and file name."""

    def __bool__(self) -> bool:
        return bool(self.generations or self.snapshots or self.parts)

    def __or__(self, other: Condemned) -> Condemned:
        return Condemned(
            generations=self.generations | other.generations,
            snapshots=self.snapshots | other.snapshots,
            parts=self.parts | other.parts,
        )


def announce(output: str, condemned: Condemned) -> str:
    """Write a list; returns its URI, to be given to `withdraw`."""
    value = {name: sorted(members) for name, members in vars(condemned).items()}
    uri = storage.join(_folder(output), f"{uuid.uuid4().hex}.json")
    storage.create(uri, json.dumps(value).encode())
    return uri


def withdraw(uri: str) -> None:
    """Take a list back: all of it is deleted, or nothing was."""
    ref = storage.stat(uri)
    if ref is not None:
        storage.delete(ref)


def read(output: str) -> Condemned:
    """Everything that any list names."""
    everything = Condemned()
    for name in names_in(_folder(output)):
        everything |= _read(storage.join(_folder(output), name))
    return everything


def refuse_snapshot(output: str, generation: str, sequence: int) -> None:
    """Raise StoreError if the snapshot is about to be deleted, NotFoundError if it is not there.

    To be called between the look at the published pointer and the swap of that version: a removal
    that starts later gives the pointer another version first.
    """
    condemned = read(output)
    what = f"snapshot {sequence} of generation {generation}"
    if generation in condemned.generations or (generation, sequence) in condemned.snapshots:
        raise _being_removed(output, what)
    uri = storage.join(output, "_fcn", "snap", generation, f"{sequence:020d}.json")
    if storage.stat(uri) is None:
        raise NotFoundError(f"cannot publish {what}: there is no {uri}")


def refuse_parts(output: str, generation: str, names: Collection[PartName]) -> None:
    """Raise StoreError if parts are about to be deleted, or are not there any more.

    To be called between the look at a generation's newest snapshot and the creation of the next
    number: a removal that starts later takes that number first.
    """
    condemned = read(output)
    files = {name.file for name in names}
    if generation in condemned.generations:
        raise _being_removed(output, f"generation {generation}")
    if doomed := sorted(files & {file for one, file in condemned.parts if one == generation}):
        raise _being_removed(output, ", ".join(doomed[:SHOWN]))
    folder = storage.join(output, "data", f"gen={generation}")
    if gone := sorted(files - set(names_in(folder))):
        raise StoreError(
            f"{len(gone)} parts are not in {folder} any more, such as "
            f"{', '.join(gone[:SHOWN])}; run the same command again, which makes them anew",
            transient=True,
        )


def _folder(output: str) -> str:
    return storage.join(output, "_fcn", "gc")


def _read(uri: str) -> Condemned:
    try:
        value = json.loads(storage.read_bytes(uri))
        return Condemned(
            generations=frozenset(value["generations"]),
            snapshots=frozenset((name, number) for name, number in value["snapshots"]),
            parts=frozenset((name, file) for name, file in value["parts"]),
        )
    except NotFoundError:
        return Condemned()  # withdrawn since it was listed
    except (ValueError, TypeError, KeyError) as error:
        raise ForeignObjectError(
            f"{uri} is no list of jobs/gc.py ({error}); it was left untouched: move it away"
        ) from error


def _being_removed(output: str, what: str) -> StoreError:
    return StoreError(
        f"{what} in {output} is being removed by jobs/gc.py; if that was killed, run "
        "jobs/gc.py --remove again and choose another snapshot, or wait a day",
        transient=True,
    )
