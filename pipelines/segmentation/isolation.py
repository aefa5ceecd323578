"""A unit that has killed its workers, done alone: record by record, in processes of their own.

The record that breaks its process, or takes too much time or memory, becomes one error row; the
others keep the masks that they would have had. One child decodes and another runs the network, so
that the blame is precise, and a file that kills its decoder does not cost the network. A process
that has done other records may have been broken by them: a record is blamed only by a process in
which it was the first, and only after a second try.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from pipelines.errors import ClusterError, InputError
from pipelines.segmentation.confined import Child, ChildError
from pipelines.segmentation.messages import item_in, item_out, job_out
from pipelines.segmentation.stages import Job, commit, read_items, run_stage
from pipelines.segmentation.unit_row import Item, UnitRow

Role = Literal["decode", "network"]

TRIES = 3
"""That a record gets at most. Two are enough to blame it, unless somebody else may have killed."""

CULPRITS = 100
"""More in one unit point to the machine or a library rather than to the records."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one record may take when its unit is done alone."""

    record_seconds: float = 120.0
    """To decode it, or to run the network on it; for the network more with its size."""
    record_bytes: int = 8 << 30
    """Memory beyond that of the idle process."""
    megapixel_seconds: float = 60.0
    """That the network and the encoder get in addition, for each megapixel."""
    start_seconds: float = 900.0
    """Until a process has loaded what it needs."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise InputError(f"{name} must be positive, got {value}")


def segment_alone(row: UnitRow, job: Job, limits: Limits) -> dict[str, Any]:
    """Do a unit and commit it; the receipt is that of `stages.commit`, and failures stand in it.

    A unit fails as a whole if it cannot be read, if a child cannot even start, or if far too many
    records would have to be blamed.
    """
    row = replace(row, items=[], seconds=dict(row.seconds))

    def work() -> None:
        with Children(job, limits) as children:
            culprits = 0
            for item in read_items(row, job):
                done = tried(item, children.segment) if item.form == "encoded" else item
                row.items.append(done)
                culprits += done.form == "error" and done.attempts > 1
                if culprits > CULPRITS:
                    raise ClusterError(
                        f"more than {CULPRITS} records end their processes, the last by "
                        f"{done.error}; is a library or the GPU of this machine broken?"
                    )

    run_stage(row, "alone", work)
    return commit(row, job)


def tried(item: Item, segment: Callable[[Item], Item]) -> Item:
    """The record segmented, or as an error row if ``segment`` loses its process again and again."""
    tries = 1
    while True:
        try:
            return replace(segment(item), attempts=tries)
        except ChildError as error:
            sure = tries > 1 and error.fresh and not error.foreign
            if sure or tries == TRIES:
                text = f"{error} (try {tries}, alone)"
                return replace(item.failed(error.kind, text), attempts=tries)
        tries += 1


class Children:
    """The two processes of a unit, each started when it is needed, and again after it has died."""

    def __init__(self, job: Job, limits: Limits) -> None:
        self._job = job
        self._limits = limits
        self._running: dict[Role, Child] = {}

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for child in self._running.values():
            child.close()

    def segment(self, item: Item) -> Item:
        """The record with its mask encoded, or as an error row if that can be told decently.

        Raises ChildError if its process dies, and ClusterError if one cannot start.
        """
        seconds = self._limits.record_seconds
        item = self._ask("decode", item, "while decoding", seconds)
        if item.form != "rgb":
            return item
        seconds += self._limits.megapixel_seconds * item.height * item.width / 1e6
        return self._ask("network", item, "in the network", seconds)

    def _ask(self, role: Role, item: Item, phase: str, seconds: float) -> Item:
        if role not in self._running:
            self._running[role] = self._start(role)
        child = self._running[role]
        head, body = item_out(item)
        growth = self._limits.record_bytes
        try:
            return item_in(child.ask(head, body, phase=phase, seconds=seconds, growth=growth))
        except ChildError:
            del self._running[role]
            raise

    def _start(self, role: Role) -> Child:
        # -P: nothing in the current folder may stand in for a module.
        program = [sys.executable, "-P", "-m", "pipelines.segmentation.child"]
        path = os.pathsep.join(folder or str(Path.cwd()) for folder in sys.path)
        environment = os.environ | {"PYTHONPATH": path}
        child = Child([*program, role, str(os.getpid())], environment)
        try:
            child.start({"job": job_out(self._job)}, seconds=self._limits.start_seconds)
        except ChildError as error:
            raise ClusterError(
                f"the process for {role} ended before it had a record, which is to no record's "
                f"blame: {error}"
            ) from error
        return child
