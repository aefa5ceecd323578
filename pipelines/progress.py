"""Lines of progress from workers to the driver, free of Ray's own log noise."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

POLL_SECONDS = 0.5


class _Lines:
    """Ray actor: holds lines until the driver fetches them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        self.lines.append(line)

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


@contextmanager
def relay(show: Callable[[str], None]) -> Iterator[Any]:
    """Give workers a handle whose ``add.remote(line)`` ends up in ``show`` on the driver.

    Lines that workers add after the block has ended are dropped.
    """
    actor = ray.remote(num_cpus=0)(_Lines).remote()
    ended = threading.Event()

    def fetch() -> None:
        for line in ray.get(actor.take.remote()):
            show(line)

    def poll() -> None:
        while not ended.wait(POLL_SECONDS):
            try:
                fetch()
            except ray.exceptions.RayError:
                return  # the cluster is going down, and the driver will say why

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield actor
        ended.set()
        thread.join()
        fetch()
    finally:
        ended.set()
        ray.kill(actor)
