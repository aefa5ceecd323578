"""A night with images that kill or hang whoever touches them ends, and they are error rows."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.dataset as pads
import pytest
from PIL import Image

from fcn_model import load_segmenter
from tests.support import poison
from tests.support.tiny import save_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
POISONED = {
    "03.png": ("decode", "segfault", "crash"),
    "06.png": ("network", "segfault", "crash"),
    "10.png": ("decode", "hang", "timeout"),
}


def test_images_that_kill_or_hang_their_workers_become_error_rows(tmp_path):
    save_checkpoint(tmp_path / "checkpoint", seed=1)
    segmenter = load_segmenter(tmp_path / "checkpoint")
    (tmp_path / "archive").mkdir()
    rng = np.random.default_rng(0)
    expected = {}
    for index in range(12):
        key = f"{index:02d}.png"
        pixels = np.kron(
            rng.integers(0, 256, (2, 3, 3), dtype=np.uint8), np.ones((20, 20, 1), np.uint8)
        )
        if key in POISONED:
            pixels = poison.poisoned(pixels, *POISONED[key][:2])
        else:
            expected[key] = segmenter(pixels)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        (tmp_path / "archive" / key).write_bytes(file.getvalue())

    hook = poison.install(tmp_path / "hook")
    command = [sys.executable, "jobs/segment.py", "--unit-records", "3", "--record-seconds", "3"]
    command += ["--input", tmp_path / "archive", "--output", tmp_path / "out"]
    command += ["--checkpoint", tmp_path / "checkpoint"]
    job = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(hook)},
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert job.returncode == 0, job.stdout + job.stderr
    rows = {
        row["key"]: row for row in pads.dataset(tmp_path / "out" / "data").to_table().to_pylist()
    }
    assert rows.keys() == expected.keys() | POISONED.keys()
    for key, (_, _, kind) in POISONED.items():
        assert (rows[key]["status"], rows[key]["error_kind"]) == ("error", kind)
        assert 1 < rows[key]["attempts"] <= 3
        assert not rows[key]["transient"]
    for key, mask in expected.items():
        stored = np.asarray(Image.open(io.BytesIO(rows[key]["mask"]["bytes"])))
        assert np.array_equal(stored, mask), key
    assert len({mask.tobytes() for mask in expected.values()}) > 1
