"""Lines of progress from workers to the driver, free of Ray's own log noise."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray

POLL_SECONDS = 0.5


class _Lines:
    """Ray actor: holds lines until the driver fetches them, and the refusal of bad input."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.refused: dict[str, str] = {}

    def refuse(self, error: dict[str, str]) -> None:
        self.refused = error

    def refusal(self) -> dict[str, str]:
        return self.refused

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
        with suppress(ray.exceptions.RayError):  # lost lines are no reason to lose the work
            fetch()
    finally:
        ended.set()
        ray.kill(actor)
