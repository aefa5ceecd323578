"""A time limit ends a process that does not come back, and no other."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from pipelines.segmentation import watchdog
from pipelines.segmentation.watchdog import renewed_limit, time_limit

PRELUDE = """
import re, threading, time
from pipelines.segmentation.watchdog import renewed_limit, time_limit
def forever():
    re.match("(a+)+$", "a" * 64 + "b")  # in C, with the interpreter's lock
"""


def outcome(code: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a program."""
    program = [sys.executable, "-c", PRELUDE + textwrap.dedent(code)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_code_that_never_gives_the_interpreter_back_is_ended_and_its_stack_printed():
    status, _, said = outcome("with time_limit(0.3): forever()")
    assert status == 1
    assert "Timeout" in said
    assert "in match" in said


def test_a_block_that_ends_in_time_leaves_no_timer_behind_also_when_it_raises():
    status, said, _ = outcome("""
        for _ in range(3):
            with time_limit(0.2): pass
        try:
            with time_limit(0.2): raise KeyError
        except KeyError:
            pass
        time.sleep(0.5)
        print("alive")
    """)
    assert (status, said) == (0, "alive\n")


def test_the_earliest_end_of_nested_blocks_counts_whichever_it_is():
    for outer, inner in ((0.3, 60), (60, 0.3)):
        assert outcome(f"with time_limit({outer}), time_limit({inner}): forever()")[0] == 1
    status, said, _ = outcome("""
        with time_limit(0.6):
            with time_limit(0.5): print("inner", flush=True)
            time.sleep(60)  # no longer under the inner limit, but under the outer
    """)
    assert (status, said) == (1, "inner\n")


def test_threads_have_their_own_limits():
    status, said, _ = outcome("""
        def quick():
            with time_limit(0.4): time.sleep(0.1)
        def slow():
            with time_limit(0.7): time.sleep(60)
        threading.Thread(target=slow, daemon=True).start()
        thread = threading.Thread(target=quick)
        thread.start()
        thread.join()  # its end must not stop the other's clock
        print("quick", flush=True)
        time.sleep(60)
    """)
    assert (status, said) == (1, "quick\n")


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_limit_is_positive(seconds):
    with pytest.raises(ValueError, match="positive number of seconds"), time_limit(seconds):
        pass


def test_a_renewed_limit_is_from_its_last_renewal_and_leaves_no_timer_behind():
    status, said, _ = outcome("""
        with renewed_limit(0.3) as begin:
            time.sleep(0.5)  # nothing has begun
            for _ in range(6):
                begin()
                time.sleep(0.15)
            print("many", flush=True)
        time.sleep(0.6)
        print("alive", flush=True)
        with renewed_limit(0.4) as begin:
            begin()
            time.sleep(0.2)
            begin()
            print("hangs", flush=True)
            forever()
    """)
    assert (status, said) == (1, "many\nalive\nhangs\n")


def test_few_renewals_set_the_timer_anew(monkeypatch):
    times = []
    monkeypatch.setattr(watchdog, "_set_timer", lambda: times.append(dict(watchdog._ends)))
    with renewed_limit(60) as begin:
        for _ in range(1000):
            begin()
    assert len(times) == 2, "at the first beginning and at the end"
    assert times[1] == {}
