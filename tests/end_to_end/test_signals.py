"""A job that is told to stop ends cleanly. Jobs that are killed: test_chaos."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines.datasets.scenes import write_scenes
from tests.support.tiny import save_checkpoint

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parents[2]
IMAGES = 60


def _start(tmp_path, log):
    command = [sys.executable, "jobs/segment.py", "--unit-records", "2"]
    command += ["--input", tmp_path / "archive", "--output", tmp_path / "out"]
    command += ["--checkpoint", tmp_path / "checkpoint"]
    return subprocess.Popen(
        [str(part) for part in command], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
    )


@contextmanager
def _ended(job):
    """The job and all its processes, ended whatever the test finds."""
    try:
        yield
    finally:
        if job.poll() is None:
            family = psutil.Process(job.pid).children(recursive=True)
            for process in (psutil.Process(job.pid), *family):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            job.wait()


def _parts(tmp_path):
    return sorted((tmp_path / "out").glob("data/gen=*/part-*"))


def _wait_for_parts(tmp_path, job, count):
    deadline = time.monotonic() + 240
    while len(_parts(tmp_path)) < count:
        assert job.poll() is None, "the job ended before it was stopped; give it more images"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_stopped_job_leaves_whole_files_and_the_same_command_completes_them(tmp_path):
    save_checkpoint(tmp_path / "checkpoint")
    (tmp_path / "archive").mkdir()
    rng = np.random.default_rng(0)
    for index in range(IMAGES):
        pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"archive/{index:03d}.png")

    with (tmp_path / "log").open("w+") as log:
        job = _start(tmp_path, log)
        with _ended(job):
            _wait_for_parts(tmp_path, job, 2)
            family = psutil.Process(job.pid).children(recursive=True)
            job.send_signal(signal.SIGTERM)
            assert job.wait(60) == 128 + signal.SIGTERM
        _, alive = psutil.wait_procs(family, timeout=30)
        assert not alive, "processes of the stopped job still run"
        text = (tmp_path / "log").read_text()
        assert text.rstrip().endswith("run the same command again to continue")
        assert "Traceback" not in text
        before = {path: path.read_bytes() for path in _parts(tmp_path)}
        assert 2 <= len(before) < IMAGES // 2
        for path in before:
            assert pq.read_table(path, page_checksum_verification=True).num_rows == 2

        again = _start(tmp_path, log)
        assert again.wait(240) == 0, (tmp_path / "log").read_text()
    keys = Counter(
        key for path in _parts(tmp_path) for key in pq.read_table(path)["key"].to_pylist()
    )
    assert keys == dict.fromkeys((f"{index:03d}.png" for index in range(IMAGES)), 1)
    assert all(path.read_bytes() == data for path, data in before.items())


def test_training_that_is_interrupted_ends_with_the_signals_exit_code(tmp_path):
    write_scenes(str(tmp_path / "scenes"), images=12, seed=1, split="x")
    command = [sys.executable, "jobs/train.py", "--name", "long", "--epochs", "100000"]
    command += ["--train", tmp_path / "scenes", "--val", tmp_path / "scenes"]
    command += ["--storage", tmp_path / "runs", "--width", "0.0625", "--fc-width", "16"]
    with (tmp_path / "log").open("w+") as log:
        job = subprocess.Popen(
            [str(part) for part in command], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )
        with _ended(job):
            deadline = time.monotonic() + 240
            while "epoch 1/" not in (tmp_path / "log").read_text():
                assert job.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.1)
            family = psutil.Process(job.pid).children(recursive=True)
            job.send_signal(signal.SIGINT)
            assert job.wait(60) == 128 + signal.SIGINT
        _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive, "processes of the stopped job still run"
    text = (tmp_path / "log").read_text()
    assert "Traceback" not in text
    assert text.rstrip().endswith("run the same command again to continue")
