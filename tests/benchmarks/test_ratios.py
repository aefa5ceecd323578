"""A ratio is worse than recorded beyond the tolerance and on the bad side, not elsewhere."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.ratios import Ratio, regressions


@pytest.mark.parametrize(
    ("recorded", "now", "goal", "at_least", "worse"),
    [
        (2.0, 1.51, 3.0, True, False),
        (2.0, 1.49, 3.0, True, True),
        (2.0, 9.0, None, True, False),
        (16.0, 19.9, 20.0, False, False),
        (16.0, 21.1, 20.0, False, True),
        (16.0, 19.9, None, False, False),
        (16.0, 20.1, None, False, True),
        (16.0, 1.0, 20.0, False, False),
        (0.0, 0.0124, 0.05, False, False),
        (0.0, 0.0126, 0.05, False, True),
    ],
)
def test_worse_is_beyond_a_quarter_on_the_bad_side(recorded, now, goal, at_least, worse):
    ratio = Ratio("one", [now, now, 1e9 if at_least else -1e9], goal, at_least)
    before = {"ratios": {"one": {"median": recorded}}}
    found = regressions(before, [ratio])
    assert found == ([f"one: {now:.3g}, recorded {recorded:.3g}"] if worse else [])


def test_a_ratio_that_was_never_recorded_is_not_worse():
    assert regressions({"ratios": {}}, [Ratio("new", [0.1], 0.9)]) == []


def test_to_compare_needs_no_more_than_setup_installs():
    """matplotlib is of another extra, and for whoever records."""
    program = "import sys; sys.modules['matplotlib'] = None; import benchmarks.kept_fast"
    subprocess.run([sys.executable, "-c", program], check=True)
