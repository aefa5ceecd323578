"""What a job's own cluster does beside the work: nothing that nobody looks at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import local_cluster

ROOT = Path(__file__).parents[2]

LOOK = """
import json, os, time, ray
from jobs.runtime import ray_session

def idle():
    names = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            session, command = os.getsid(int(process)), open(f"/proc/{process}/cmdline").read()
        except OSError:
            continue
        if "ray::IDLE" in command and session == os.getsid(0):
            names.append(command)
    return len(names)

with ray_session():
    found = {}
    @ray.remote
    def wait():
        time.sleep(3)
    ray.get([wait.remote() for _ in range(6)])
    found["idle"] = found["later"] = idle()
    deadline = time.monotonic() + 60
    while found["later"] >= found["idle"] and time.monotonic() < deadline:
        time.sleep(1)
        found["later"] = idle()
print(json.dumps(found))
"""


def test_only_what_is_unset_is_set_and_only_for_a_cluster_of_ones_own():
    environment = {"RAY_num_workers_soft_limit": "7"}
    local_cluster.prepare(environment)
    assert environment["RAY_num_workers_soft_limit"] == "7"
    assert set(environment) == {setting.name for setting in local_cluster.SETTINGS}
    joined = {"RAY_ADDRESS": "127.0.0.1:6379"}
    local_cluster.prepare(joined)
    assert joined == {"RAY_ADDRESS": "127.0.0.1:6379"}


def test_the_installed_ray_knows_every_setting():
    import ray

    package = Path(ray.__file__).parent
    compiled = (package / "core/src/ray/raylet/raylet").read_bytes()
    read = [
        path.read_text()
        for part in ("_private", "dashboard", "train/v2")
        for path in (package / part).rglob("*.py")
    ]
    for setting in local_cluster.SETTINGS:
        name = setting.name
        in_core = name.startswith("RAY_") and name.removeprefix("RAY_").encode() + b"\0" in compiled
        assert in_core or any(f'"{name}"' in text for text in read), name


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes in /proc")
def test_idle_workers_of_an_own_cluster_end():
    names = [setting.name for setting in local_cluster.SETTINGS]
    environment = {
        **{name: text for name, text in os.environ.items() if name not in (*names, "RAY_ADDRESS")},
        "RAY_idle_worker_killing_time_threshold_ms": "2000",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["later"] < found["idle"], "Ray would keep one for each of eight logical CPUs"
