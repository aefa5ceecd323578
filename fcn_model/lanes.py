"""Several batches at a time on a CPU, each by a thread of its own with a share of the cores.

torch deals every operator to all its threads, and each of them waits for the slowest before the
next one: where the work is not dealt evenly, and where another process has taken a core away.
Threads that compute batches of their own wait for nothing. On two cores FCN-8s did 1.03 times the
images with two of one thread each, a sixteenth of its width 1.12 times (by hand, nothing beside).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Lanes:
    """``count`` threads that share those that torch has where they are first used.

    With a count of 1 everything is done by whoever calls. Any number of threads may call.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._threads = 0
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()

    def even(self, items: Sequence[Item], most: int) -> list[Sequence[Item]]:
        """Items in parts of at most ``most``, in their order: as many parts for every lane."""
        parts = -(-len(items) // most)
        parts = min(len(items), -(-parts // self.count) * self.count)
        ends = [len(items) * part // parts for part in range(parts + 1)]
        return [items[start:end] for start, end in pairwise(ends)]

    def each(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """What ``work`` makes of every item, in their order, which is that of their beginnings.

        What ``work`` raises is raised. Fewer items than lanes are done as by `alone`.
        """
        if len(items) < self.count or self.count == 1:
            return self.alone(work, items)
        with self._lock:
            if self._pool is None:
                self._pool = _threads_of(self.count, max(1, self._all() // self.count), self._all())
        return list(self._pool.map(work, items))

    def alone(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The same one by one, each with all threads that torch has."""
        if self.count == 1 or not items:
            return list(map(work, items))
        with self._lock:
            threads = self._all()
        # Threads of torch stay with the one that has computed, as long as that lives. If there
        # are more of them than cores, all of them sleep between operators instead of being ready.
        with _threads_of(1, threads, threads) as pool:
            return list(pool.map(work, items))

    def _all(self) -> int:
        self._threads = self._threads or torch.get_num_threads()
        return self._threads


def _threads_of(count: int, share: int, usual: int) -> ThreadPoolExecutor:
    """A pool whose threads have ``share`` threads of torch each; later ones have the ``usual``."""
    started = threading.Barrier(count)

    def begin() -> None:
        torch.set_num_threads(share)
        torch.get_num_threads()  # only the first look at it fixes it for this thread
        started.wait()

    pool = ThreadPoolExecutor(count, "lane", initializer=begin)
    for future in [pool.submit(int) for _ in range(count)]:
        future.result()
    # What one thread sets is what all threads begin with that compute for the first time after it.
    last = threading.Thread(target=torch.set_num_threads, args=(usual,))
    last.start()
    last.join()
    return pool
