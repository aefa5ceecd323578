"""What Ray Train has left of a run, whole and damaged."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from ray.train import Checkpoint, CheckpointConfig
from ray.train.v2._internal.execution.checkpoint.checkpoint_manager import CheckpointManager
from ray.train.v2._internal.execution.storage import StorageContext
from ray.train.v2._internal.execution.training_report import _TrainingReport

from pipelines import storage
from pipelines.errors import InputError
from pipelines.kept_epochs import SNAPSHOT_FILE, finished_epochs, remove_left_over

FOLDERS = [f"checkpoint_2026-11-27_11-00-0{epoch}.000000" for epoch in (1, 2, 3)]


def ray_keeps(runs: Path) -> Path:
    """A run of three epochs, of which the second is the best, in Ray Train's own hand."""
    asyncio.run(_register(runs))  # as in Ray's controller, which tells others of it
    return runs / "run"


async def _register(runs: Path) -> None:
    context = StorageContext(storage_path=str(runs), experiment_dir_name="run")
    manager = CheckpointManager(
        CheckpointConfig(num_to_keep=1, checkpoint_score_attribute="mean_iu"), context
    )
    for epoch, (folder, score) in enumerate(zip(FOLDERS, (0.1, 0.7, 0.5), strict=True), 1):
        path = runs / "run" / folder
        path.mkdir(parents=True)
        (path / "model.safetensors").write_bytes(b"weights")
        metrics = {"epoch": epoch, "mean_iu": score}
        manager.register_checkpoint(
            _TrainingReport(metrics=metrics, checkpoint=Checkpoint(str(path)), validation=False)
        )


def finished(run: Path) -> int:
    uri = storage.parse_uri(str(run))
    return finished_epochs(uri, *storage.arrow_filesystem(uri))


def test_the_latest_epoch_counts_not_the_best(tmp_path):
    run = ray_keeps(tmp_path)
    assert finished(run) == 3
    assert sorted(path.name for path in run.glob("checkpoint_2*")) == FOLDERS[1:]


def test_a_run_that_has_left_nothing_has_finished_nothing(tmp_path):
    assert finished(tmp_path / "run") == 0
    (tmp_path / "run/init").mkdir(parents=True)
    assert finished(tmp_path / "run") == 0


def test_a_snapshot_cut_anywhere_or_spoilt_is_refused_by_name(tmp_path):
    run = ray_keeps(tmp_path)
    whole = (run / SNAPSHOT_FILE).read_bytes()
    damaged = [whole[:length] for length in range(0, len(whole), 40)]
    damaged += [b"5", b"null", b"{}", b"\xff" + whole, whole.replace(FOLDERS[2].encode(), b"x", 1)]
    for data in damaged:
        (run / SNAPSHOT_FILE).write_bytes(data)
        with pytest.raises(InputError, match=r"choose another --name.*best/.* as it was") as raised:
            finished(run)
        assert f"run file://{run} cannot go on from" in str(raised.value)
        assert f"file://{run}/{SNAPSHOT_FILE}: " in str(raised.value)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("gone", FOLDERS[1:])
def test_a_checkpoint_that_is_gone_is_named(tmp_path, gone):
    run = ray_keeps(tmp_path)
    shutil.rmtree(run / gone)
    with pytest.raises(InputError, match=rf"not exist.*{gone}.*choose another --name"):
        finished(run)


def test_only_older_folders_of_epochs_that_are_not_kept_are_removed(tmp_path):
    run = ray_keeps(tmp_path)
    orphan = "checkpoint_2026-11-27_10-59-59.123456"
    others = ["best", "init", "checkpoint_mine", "checkpoint_2026-11-27_11-00-04.000000"]
    for name in (orphan, *others):
        (run / name).mkdir()
        (run / name / "model.safetensors").write_bytes(b"weights")
    (run / "checkpoint_2026-11-27_10-00-00.000000.txt").write_bytes(b"")
    before = {path.name for path in run.iterdir()}
    place = storage.arrow_filesystem(storage.parse_uri(str(run)))
    assert remove_left_over(*place, []) == []
    assert remove_left_over(*place, FOLDERS[1:]) == [orphan]
    assert {path.name for path in run.iterdir()} == before - {orphan}
    assert remove_left_over(*place, FOLDERS[1:]) == []
    assert finished(run) == 3


@pytest.mark.s3
def test_folders_in_a_store_are_removed_whole(s3):
    run = storage.parse_uri(s3.uri())
    for folder in (*FOLDERS, "best"):
        for name in ("config.json", "model.safetensors"):
            storage.replace(storage.join(run, f"{folder}/{name}"), b"x")
    assert remove_left_over(*storage.arrow_filesystem(run), FOLDERS[1:]) == FOLDERS[:1]
    keys = {storage.relative(ref.uri, run).split("/")[0] for ref in storage.list_objects(run)}
    assert keys == {*FOLDERS[1:], "best"}
