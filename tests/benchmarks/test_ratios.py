"""A ratio is worse than recorded beyond the tolerance and on the bad side, not elsewhere."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.ratios import Ratio, beside, regressions


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


def test_a_ratio_that_was_never_recorded_is_new_and_one_that_is_gone_is_named():
    before = {"ratios": {"old": {"median": 2.0}}}
    assert regressions(before, [Ratio("new", [0.1], 0.9)]) == ["old: not measured, recorded 2"]
    found = beside(before, [Ratio("new", [0.1], 0.9), Ratio("old", [1.4])]).splitlines()
    assert found[1].split()[-1] == "new"
    assert found[2].split()[-2:] == ["2", "worse"]


def test_a_network_whose_masks_are_wrong_is_worse_however_wide_the_tolerance():
    same = {"ratios": {"differ": {"median": 0.0}}}
    assert regressions(same, [Ratio("differ", [2.4], 10, at_least=False)]) == []
    assert regressions(same, [Ratio("differ", [2.6], 10, at_least=False)])


def test_a_name_that_no_benchmark_has_is_refused():
    command = [sys.executable, "-m", "benchmarks.kept_fast", "--only", "throughput"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "there is no 'throughput'; there are inference, throughput small" in done.stderr


def test_to_compare_needs_no_more_than_setup_installs():
    """matplotlib is of another extra, and for whoever records."""
    program = "import sys; sys.modules['matplotlib'] = None; import benchmarks.kept_fast"
    subprocess.run([sys.executable, "-c", program], check=True)
