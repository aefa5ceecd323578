"""How far a run of bulk segmentation is: a line now and then, and counters for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.util.metrics import Counter

from pipelines.segmentation.amounts import duration

Say = Callable[[str], None]

OFTEN, SELDOM = 2.0, 60.0
"""Seconds between two lines: at first, and after an hour. A log of a night should stay readable."""


class Progress:
    """Takes receipts and says what they add up to.

    The counters, for Ray's metrics endpoint, are ``fcn_records``, ``fcn_error_rows`` by ``kind``,
    ``fcn_units`` by ``outcome``, ``fcn_output_bytes`` and ``fcn_stage_seconds`` by ``stage``.
    """

    def __init__(self, units: int, say: Say) -> None:
        self.units = units
        self.done = self.records = self.errors = self.failed = 0
        self._say = say
        self._started = self._said = time.monotonic()
        self._records = Counter("fcn_records", "Records that have a row in a committed part.")
        self._rows = Counter("fcn_error_rows", "Error rows.", ("kind",))
        self._units = Counter("fcn_units", "Units by what became of them.", ("outcome",))
        self._bytes = Counter("fcn_output_bytes", "Bytes of committed parts.")
        self._seconds = Counter("fcn_stage_seconds", "Worker seconds by stage.", ("stage",))

    def add(self, receipt: dict[str, Any]) -> None:
        """Count one unit's receipt."""
        stats = receipt.get("stats") or {"records": 0, "errors": {}}
        self.done += 1
        self.records += stats["records"]
        self.errors += sum(stats["errors"].values())
        self.failed += receipt["outcome"] == "failed"
        self._count(receipt, stats)
        now = time.monotonic()
        elapsed = now - self._started
        if now - self._said > min(SELDOM, max(OFTEN, elapsed / 60)) or self.done == self.units:
            self._said = now
            self._say(self.line(elapsed))

    def line(self, elapsed: float) -> str:
        """Units and images done, the rate, the errors and the time left."""
        left = (self.units - self.done) * elapsed / max(self.done, 1)
        return (
            f"{self.done} of {self.units} units, {self.records} images, "
            f"{self.records / max(elapsed, 1e-9):.1f} images/s, {self.errors} error rows, "
            f"{self.failed} failed units, about {duration(left)} left"
        )

    def _count(self, receipt: dict[str, Any], stats: dict[str, Any]) -> None:
        self._units.inc(1, {"outcome": receipt["outcome"]})
        for counter, amount in ((self._records, stats["records"]), (self._bytes, receipt["bytes"])):
            if amount:
                counter.inc(amount)
        for kind, count in stats["errors"].items():
            self._rows.inc(count, {"kind": kind})
        for stage, seconds in receipt["seconds"].items():
            if seconds > 0:
                self._seconds.inc(seconds, {"stage": stage})
