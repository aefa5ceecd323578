"""A time limit that also ends code which never comes back to Python.

An image library that loops for ever in C hears no signal handler and no exception, and holds the
interpreter's lock, so that no Python thread can do anything about it either. Only the end of the
process helps. Python's `faulthandler` has a timer that needs neither lock nor signal: a thread in C
that prints every thread's stack and leaves. Ray then gives the work to another worker, finitely
often, and a unit that is still not done is done alone, where the record is found that does this.
"""

from __future__ import annotations

import faulthandler
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_STDERR = 2
"""The descriptor, which Ray sends to the worker's log; ``sys.stderr`` may be no file at all."""

SLACK = 1.25
"""How many times as long as asked a renewed limit may be."""

_lock = threading.Lock()
_ends: dict[object, float] = {}
"""When the blocks end that run now, in any thread, by `time.monotonic`: a process has one timer."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End this process with status 1 if the block takes longer than ``seconds``.

    The stacks of all threads go to standard error first. Nothing else is cleaned up or flushed.
    Blocks may be nested and may run in several threads: the earliest end counts. They take the
    timer of `faulthandler.dump_traceback_later` away from whoever else used it in this process.
    Raises ValueError for a limit that is not positive.
    """
    with renewed_limit(seconds, slack=1) as begin:
        begin()
        yield


@contextmanager
def renewed_limit(seconds: float, slack: float = SLACK) -> Iterator[Callable[[], None]]:
    """`time_limit` from the last call of what this gives, ``slack`` times as long at most.

    The timer's thread begins anew each time that it is set, for which many short pieces of work
    would wait: on two cores with other work half a millisecond for each image (by a profile).
    """
    if not seconds > 0:
        raise ValueError(f"a time limit is a positive number of seconds, got {seconds}")
    block = object()

    def renew() -> None:
        now = time.monotonic()
        with _lock:
            if _ends.get(block, now) < now + seconds:
                _ends[block] = now + slack * seconds
                _set_timer()

    try:
        yield renew
    finally:
        with _lock:
            if _ends.pop(block, None) is not None:
                _set_timer()


def _set_timer() -> None:
    """Set the timer to the earliest end, or stop it; under the lock."""
    if not _ends:
        faulthandler.cancel_dump_traceback_later()
        return
    left = min(_ends.values()) - time.monotonic()
    faulthandler.dump_traceback_later(max(left, 0.001), exit=True, file=_STDERR)
