"""CPU time by process: what a child reports of itself, and sums done by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import overhead

BUSY = """
import sys, time
while time.process_time() < 0.5:
    pass
print(time.process_time(), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are read in /proc")
def test_a_child_has_used_what_it_says_itself():
    child = subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        said = float(child.stdout.readline())
        found = overhead.usage(os.getpid())
    assert found[child.pid][1] == pytest.approx(said, abs=0.1)
    assert os.getpid() in found
    assert os.getppid() not in found


def test_processes_of_a_name_are_added_and_the_trainer_is_no_overhead():
    first = {1: ("ray::RayTrainWorker", 5.0), 2: ("ray::IDLE", 1.0)}
    last = {1: ("ray::RayTrainWorker", 105.0), 2: ("ray::IDLE", 4.0), 3: ("ray::IDLE", 2.0)}
    text = overhead.table(first, last, 50.0)
    assert "| ray::RayTrainWorker | 1 | 200.00 |" in text
    assert "| ray::IDLE | 2 | 10.00 |" in text
    assert "beside the trainer: 10.0 CPU s in 100 s, 0.050 of the trainer's" in text


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("ray::MapWorker(MapBatches(Infer)).submit", "ray::MapWorker(MapBatches(Infer))"),
        ("/usr/bin/python -u /ray/_private/log_monitor.py --x=1", "log_monitor.py"),
        ("/ray/core/gcs_server --port=0", "gcs_server"),
        ("", "?"),
    ],
)
def test_a_process_goes_by_rays_name_its_script_or_its_program(command, name):
    assert overhead.name_of(command) == name
