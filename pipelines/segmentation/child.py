"""The program of the processes in which a unit is done alone: ``child.py ROLE PARENT``.

The role ``decode`` turns image files into pixels, and starts in a second; ``network`` turns pixels
into encoded masks, and must load the network. Each does one record at a time, and ends when its
standard input does, or with its parent. What native code prints must not get between the answers,
so that standard output is led to standard error.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipelines.segmentation.messages import item_in, item_out, job_in, pack, read
from pipelines.segmentation.stages import Job, decoded, encoded
from pipelines.segmentation.unit_row import Item, UnitRow

Say = Callable[[dict[str, Any]], None]
Work = Callable[[Item], Item]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Answer on standard output until standard input ends."""
    role, parent = sys.argv[1:]
    confine(int(parent))
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        serve(ROLES[role], sys.stdin.buffer, answers)


def confine(parent: int) -> None:
    """Be the first that a system without memory ends, leave no dump, do not outlive ``parent``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal; the parent hears it as well
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    if sys.platform == "linux":
        # A loop that never comes back would not notice that standard input has ended.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before that
            sys.exit("the parent is gone")


def serve(role: Callable[[Job, Say], Work], requests: BinaryIO, answers: BinaryIO) -> None:
    """The first message has the job; each further one is a record, and its answer the same."""

    def say(head: dict[str, Any], body: bytes = b"") -> None:
        answers.write(pack(head, body))
        answers.flush()

    work: Work | None = None
    while (message := read(requests)) is not None:
        try:
            if work is None:
                work = role(job_in(message[0]["job"]), say)
                say({})
            else:
                say(*item_out(work(item_in(message))))
        except Exception as error:  # noqa: BLE001  (the parent decides what it means)
            text = f"{type(error).__name__}: {error}"
            say({"raised": text[:1000], "memory": isinstance(error, MemoryError)})


def decoder(job: Job, say: Say) -> Work:
    """From an image file to pixels."""
    del say
    return lambda item: decoded(item, job)


def network(job: Job, say: Say) -> Work:
    """From pixels to an encoded mask. A blank image shows first that it works at all."""
    # The decoder's child must start without torch.
    from pipelines.decoding import PLANE_PIXELS  # noqa: PLC0415
    from pipelines.segmentation.inference import Infer  # noqa: PLC0415

    infer = Infer(job)

    def work(item: Item) -> Item:
        row = UnitRow.from_table(infer(UnitRow("", items=[item]).to_table()))
        if row.failed:
            raise RuntimeError(row.failed)
        done = row.items[0]
        if done.form == "mask":
            say({"phase": "while encoding"})
            done = encoded(done, job.classes)
        return done

    side = 32
    pixels = {
        name: np.zeros((side, side, *axes), kind) for name, (kind, axes) in PLANE_PIXELS.items()
    }
    planes = tuple(pixels[name].tobytes() for name in job.planes)
    work(Item("", "", "", "rgb", bytes(side * side * 3), planes, side, side))
    return work


ROLES: Mapping[str, Callable[[Job, Say], Work]] = {"decode": decoder, "network": network}

if __name__ == "__main__":
    main()
