"""Spilling is seen: by a store that is too small for what is put into it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FILL = """
import json, sys
import numpy as np, psutil, ray
from benchmarks import scale
local = {"address": "local", "include_dashboard": False, "log_to_driver": False}
ray.init(num_cpus=2, object_store_memory=80 << 20, **local)
(raylet,) = (p for p in psutil.Process().children(recursive=True) if p.name() == "raylet")
log = scale.log_of(raylet.cmdline())
found = [scale.spills(log.read_text())]
held = [ray.put(np.full(20 << 20, i, np.uint8)) for i in range(2)]
found.append(scale.spills(log.read_text()))
held += [ray.put(np.full(20 << 20, i, np.uint8)) for i in range(2, 12)]
ray.shutdown()
found.append(scale.spills(log.read_text()))
print(json.dumps(found))
"""


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes")
def test_what_does_not_fit_into_the_store_is_seen_to_be_spilled_and_what_fits_is_not():
    done = subprocess.run(
        [sys.executable, "-c", FILL], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    before, fits, too_much = json.loads(done.stdout.splitlines()[-1])
    assert (before, fits) == (0, 0)
    assert too_much > 0
