"""What a run says of its progress adds up, and a log of a night stays short."""

from __future__ import annotations

from collections import Counter

import pytest

from pipelines.segmentation import progress
from pipelines.segmentation.progress import Progress


class _Clock:
    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def counted(monkeypatch):
    """What the counters were raised to, by name and tags."""
    totals: Counter[tuple[str, ...]] = Counter()

    class Counted:
        def __init__(self, name, text, tags=()):
            self.name = name

        def inc(self, amount, tags=None):
            assert amount > 0, "Ray refuses to count nothing"
            totals[(self.name, *(tags or {}).values())] += amount

    monkeypatch.setattr(progress, "Counter", Counted)
    return totals


@pytest.fixture
def clock(monkeypatch):
    clock = _Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def _receipt(records, errors, outcome="committed"):
    stats = {"records": records, "errors": errors}
    made = {"stats": stats, "bytes": 10} if outcome != "failed" else {"bytes": 0}
    return {"outcome": outcome, "seconds": {"decode": 0.5, "commit": 0.0}, **made}


def test_lines_and_counters_are_sums_over_receipts(counted, clock):
    said: list[str] = []
    run = Progress(4, said.append)
    clock.now = 10.0
    run.add(_receipt(8, {}))
    run.add(_receipt(6, {"empty": 2, "truncated": 1}, "already"))
    run.add(_receipt(0, {}, "failed"))
    clock.now = 20.0
    run.add(_receipt(6, {"empty": 1}))
    assert said[0].startswith("1 of 4 units, 8 images, 0.8 images/s, 0 error rows")
    assert said[0].endswith("about 30 s left")
    assert said[-1] == (
        "4 of 4 units, 20 images, 1.0 images/s, 4 error rows, 1 failed units, about 0 s left"
    )
    assert counted == {
        ("fcn_records",): 20,
        ("fcn_output_bytes",): 30,
        ("fcn_error_rows", "empty"): 3,
        ("fcn_error_rows", "truncated"): 1,
        ("fcn_units", "committed"): 2,
        ("fcn_units", "already"): 1,
        ("fcn_units", "failed"): 1,
        ("fcn_stage_seconds", "decode"): 2.0,
    }


def test_the_log_of_eight_hours_has_a_line_a_minute_at_most(counted, clock):
    said: list[str] = []
    run = Progress(10**9, said.append)
    for second in range(8 * 3600):
        clock.now = float(second)
        run.add(_receipt(1, {}))
    assert 8 * 50 < len(said) < 8 * 60 + 200
