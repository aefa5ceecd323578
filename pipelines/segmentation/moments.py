"""When a run reached what, for its record."""

from __future__ import annotations

import time


class Moments:
    """Points in time by name, in seconds since 1970, each at its first mark."""

    def __init__(self) -> None:
        self.reached: dict[str, float] = {}

    def mark(self, name: str) -> None:
        """Note the time, unless it was noted before."""
        self.reached.setdefault(name, round(time.time(), 3))
