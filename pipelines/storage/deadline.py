"""One total time per operation, whatever its packets, tries and pauses do.

A socket's timeout counts from packet to packet, so an answer that trickles never ends; looking up a
name and renewing credentials have no timeout at all. Therefore a call runs in a thread of its own,
which is left alone when the time is over; a few threads are kept, since starting one takes longer
than using one.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from queue import SimpleQueue
from typing import TypeVar

SECONDS = 60.0
"""What an operation may take at most, besides the time for its bytes."""

BYTES_PER_SECOND = 1e6
"""A store or network slower than this counts as one that does not work."""

GRACE_SECONDS = 1.0
"""How long a call whose time is over may take to say so itself, before it is left alone."""

_T = TypeVar("_T")
_Work = Callable[[], None]

_latest: ContextVar[float] = ContextVar("latest", default=math.inf)
_idle: dict[int, list[SimpleQueue[_Work]]] = {}  # by process: a fork has no threads


@contextmanager
def ends_within(seconds: float) -> Iterator[None]:
    """All store operations that the block starts in this thread end ``seconds`` from now."""
    token = _latest.set(min(_latest.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _latest.reset(token)


class Deadline:
    """The end of one operation that moves ``size`` bytes."""

    def __init__(self, size: int = 0) -> None:
        self._started = time.monotonic()
        self._latest = _latest.get()
        self.allow(size)

    def allow(self, size: int) -> None:
        """Reckon with ``size`` bytes, as soon as it is known how many come."""
        own = self._started + SECONDS + size / BYTES_PER_SECOND
        self._end = min(own, self._latest)

    @property
    def passed(self) -> float:
        """Seconds since the operation began."""
        return time.monotonic() - self._started

    @property
    def left(self) -> float:
        """Seconds up to the end; negative after it."""
        return self._end - time.monotonic()

    def check(self, state: str) -> None:
        """Raises TimeoutError with ``state``, how far the operation came, if time is over."""
        if self.left <= 0:
            raise TimeoutError(f"{state} in {self.passed:.0f} s")

    def run(self, call: Callable[[], _T]) -> _T:
        """What ``call`` returns or raises; TimeoutError if it does neither in time.

        Such a call goes on unwatched: nobody knows whether it takes effect later.
        """
        result: Future[_T] = Future()

        def work() -> None:
            try:
                result.set_result(call())
            except BaseException as error:  # noqa: BLE001  (raised again where it was asked for)
                result.set_exception(error)

        _helper().put(work)
        del work
        while not result.done():
            if self.left + GRACE_SECONDS <= 0:
                raise TimeoutError(f"no answer in {self.passed:.0f} s")
            try:
                return result.result(self.left + GRACE_SECONDS)
            except TimeoutError:
                continue  # of this waiting, which the loop notices, or raised by the call
        return result.result()


def _helper() -> SimpleQueue[_Work]:
    """The queue of a thread that has nothing to do."""
    try:
        return _idle.setdefault(os.getpid(), []).pop()
    except IndexError:
        tasks: SimpleQueue[_Work] = SimpleQueue()
        threading.Thread(target=_serve, args=(tasks,), name="store", daemon=True).start()
        return tasks


def _serve(tasks: SimpleQueue[_Work]) -> None:
    while True:
        work = tasks.get()
        work()
        del work  # it holds the bytes that were read
        _idle[os.getpid()].append(tasks)
