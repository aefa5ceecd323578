"""Jobs submitted to a running head, on a real S3 server."""

from __future__ import annotations

import io
import time

import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.datasets.scenes import write_scenes
from tests.support import made
from tests.support.head import Head
from tests.support.tiny import save_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.s3]

IMAGES = 240


@pytest.fixture(scope="module")
def head(s3):
    head = Head(s3.environment)
    yield head
    head.stop()


def _submit(head, *job):
    done = head.submit(*map(str, job))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_train_and_segment_run_as_submitted_jobs_and_their_results_lie_in_s3(head, s3):
    root = s3.uri()
    for split, count in (("train", 6), ("val", 3)):
        write_scenes(storage.join(root, split), images=count, seed=3, split=split)
    out = _submit(
        head,
        "jobs/train.py",
        *["--train", storage.join(root, "train"), "--val", storage.join(root, "val")],
        *["--storage", storage.join(root, "runs"), "--name", "submitted"],
        *["--width", 1 / 16, "--fc-width", 16, "--epochs", 1, "--optimizer", "adamw"],
        *["--lr", 1e-3, "--loss", "mean", "--num-workers", 2],
    )
    assert "mean IU" in out
    out = _submit(
        head,
        "jobs/segment.py",
        *["--input", storage.join(root, "val"), "--output", storage.join(root, "out")],
        *["--checkpoint", storage.join(root, "runs", "submitted", "best")],
    )
    parts = list(storage.list_objects(storage.join(root, "out")))
    rows = [
        row
        for ref in parts
        for row in pq.read_table(io.BytesIO(storage.read_bytes(ref.uri))).to_pylist()
    ]
    assert sorted(row["key"] for row in rows) == [f"val-{index:04d}" for index in range(3)]
    assert {row["status"] for row in rows} == {"ok"}


def test_a_submitted_job_with_bad_input_fails_with_one_line(head, s3):
    done = head.submit(
        "jobs/segment.py",
        "--input",
        "s3://no-such-bucket/x",
        "--output",
        s3.uri(),
        "--checkpoint",
        s3.uri(),
    )
    assert done.returncode != 0
    assert "no-such-bucket" in done.stdout
    assert "Traceback" not in done.stdout


def test_ray_job_stop_ends_a_night_within_the_three_seconds_that_ray_gives_it(head, s3, tmp_path):
    root = s3.uri()
    archive, out = storage.join(root, "archive"), storage.join(root, "out")
    for index in range(IMAGES):
        storage.create(storage.join(archive, f"{index:03d}.png"), made.png(made.picture(index)))
    save_checkpoint(tmp_path / "checkpoint")
    for file in (tmp_path / "checkpoint").iterdir():
        storage.create(storage.join(root, "checkpoint", file.name), file.read_bytes())
    command = ["jobs/segment.py", "--input", archive, "--output", out, "--unit-records", "2"]
    command += ["--checkpoint", storage.join(root, "checkpoint")]

    def parts():
        found = (ref.uri for ref in storage.list_objects(out))
        return {uri: storage.read_bytes(uri) for uri in found if "/data/" in uri}

    head.start("night", *command)
    deadline = time.monotonic() + 300
    while len(parts()) < 2:
        assert time.monotonic() < deadline, head.job("logs", "night").stdout
        time.sleep(0.1)
    stopped = head.job("stop", "night")  # SIGTERM, and SIGKILL three seconds later
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    # The last thing that a job says after its clean-up.
    log = head.job("logs", "night").stdout
    assert "stopped by SIGTERM; run the same command again to continue" in log
    assert "Traceback" not in log
    before = parts()
    assert 2 <= len(before) < IMAGES // 2
    _submit(head, *command)
    after = parts()
    assert before.items() <= after.items()
    keys = [key for data in after.values() for key in pq.read_table(io.BytesIO(data))["key"]]
    assert sorted(map(str, keys)) == [f"{index:03d}.png" for index in range(IMAGES)]
