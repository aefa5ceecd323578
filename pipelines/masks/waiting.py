"""Parts that stand in no snapshot yet: the next run takes them in by their names alone.

One that is damaged would end that run, and all after it, so it is read as those of a snapshot are.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipelines import storage
from pipelines.errors import NotFoundError, StoreError
from pipelines.masks import snapshots
from pipelines.masks.part_check import Budget, Expected, check_part
from pipelines.masks.snapshot import SnapshotPart
from pipelines.masks.verdict import Kind
from pipelines.storage import ObjectRef


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A part that the next snapshot of its generation may have."""

    ref: ObjectRef
    generation: str
    model: str | None
    """The model's digest, None if the generation's record is damaged."""
    records: int | None
    """Of the planned unit, if the plan knows."""
    masks: int | None
    """How many masks to decode, None for all."""
    replaces: bool
    """Whether its unit has another part in the snapshot that is verified."""


def check_waiting(waiting: Waiting, budget: Budget) -> list[tuple[Kind, str]]:
    """What is to be noted of a part that waits. Raises StoreError if the store does not answer.

    Its bytes are read twice: no snapshot says what they should be, so they are described first. Of
    a unit that has no other part `unit_check` says that it is not published.
    """
    try:
        with budget.hold(2 * waiting.ref.size):
            part = snapshots.describe_part(waiting.ref)
    except NotFoundError:
        return []  # it was removed since it was listed
    except StoreError as error:
        storage.stat(waiting.ref.uri)  # raises if the store is down
        return [("damaged", f"it is in no snapshot yet, and cannot get into one: {error}")]
    except (ValueError, TypeError, LookupError) as error:
        return [("damaged", f"it is in no snapshot yet, and its footer is none of ours: {error}")]
    faults = check_part(_expected(waiting, part), budget).faults
    if not faults and waiting.replaces:
        text = "it is whole and in no snapshot yet; jobs/segment.py puts it in the place of another"
        return [("waiting", text)]
    return faults


def _expected(waiting: Waiting, part: SnapshotPart) -> Expected:
    return Expected(
        uri=waiting.ref.uri,
        found=waiting.ref,
        part=part,
        generation=waiting.generation,
        model=waiting.model,
        records=waiting.records,
        masks=waiting.masks,
    )
