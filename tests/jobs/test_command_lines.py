"""What a user sees of a job that cannot run: one line, what to do, and the right exit code."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import sys

import pytest

from jobs import runtime
from pipelines.datasets.scenes import write_scenes
from pipelines.errors import InputError
from tests.support.tiny import save_checkpoint

JOBS = (
    *("prepare", "train", "segment", "evaluate", "report", "quickstart", "convert", "geometry"),
    *("verify", "publish", "gc", "export"),
)


def run(monkeypatch, capsys, name, *arguments):
    """Run a job's main in this process; returns its exit code and output."""
    module = importlib.import_module(f"jobs.{name}")
    monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py", *map(str, arguments)])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        module.main()
    output = capsys.readouterr()
    return ended.value.code, output.out, output.err


@pytest.fixture
def scenes(tmp_path):
    write_scenes(str(tmp_path / "scenes"), images=3, seed=1, split="train")
    return tmp_path / "scenes"


@pytest.fixture
def checkpoint(tmp_path):
    save_checkpoint(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.mark.parametrize("job", JOBS)
def test_help_explains_every_option_and_the_exit_codes(monkeypatch, capsys, job):
    code, out, _ = run(monkeypatch, capsys, job, "--help")
    assert code == 0
    assert "exit codes" in out
    for line in out.splitlines():
        assert "TODO" not in line


def test_a_typo_suggests_the_option(monkeypatch, capsys):
    arguments = ["--input", "x", "--checkpoint", "c", "--output", "o", "--num-actor", "2"]
    code, _, err = run(monkeypatch, capsys, "segment", *arguments)
    assert code == 2
    assert "--num-actors" in err.split("Perhaps you meant")[1]


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("http://host/x", "http"),
        ("s3://bucket/key?endpoint_override=evil", r"\?"),
        ("s3://user:secret@bucket/key", r"s3://\*\*\*@bucket/key"),
        ("gs://bucket/x", "gs"),
        ("/no/such/folder", "/no/such/folder"),
    ],
)
def test_a_bad_uri_is_one_line_that_quotes_it(monkeypatch, capsys, tmp_path, uri, text):
    code, _, err = run(monkeypatch, capsys, "prepare", "--input", uri, "--output", tmp_path / "out")
    assert code == runtime.EXIT_BAD_INPUT
    assert err.count("\n") == 1
    assert re.search(text, err)


@pytest.mark.parametrize(("job", "option"), [("segment", "unit-records"), ("prepare", "shard-mb")])
@pytest.mark.parametrize("number", [0, -1])
def test_a_limit_that_holds_nothing_is_bad_input(
    monkeypatch, capsys, scenes, checkpoint, job, option, number
):
    output = scenes.parent / "out"
    arguments = ["--input", scenes, "--output", output, f"--{option}={number}"]
    if job == "segment":
        arguments += ["--checkpoint", checkpoint]
    code, _, err = run(monkeypatch, capsys, job, *arguments)
    assert (code, err.count("\n")) == (runtime.EXIT_BAD_INPUT, 1)
    assert re.search(rf"{option.replace('-', '.')} must be at least 1, got {number}", err)
    assert not output.exists()


@pytest.mark.s3
def test_a_missing_bucket_is_bad_input_and_a_wrong_secret_is_not(monkeypatch, capsys, s3, tmp_path):
    arguments = ["prepare", "--output", tmp_path / "out", "--input"]
    code, _, err = run(monkeypatch, capsys, *arguments, "s3://no-such-bucket/x")
    assert (code, err.count("\n")) == (runtime.EXIT_BAD_INPUT, 1)
    assert "no-such-bucket" in err
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    code, _, err = run(monkeypatch, capsys, *arguments, s3.uri())
    assert (code, err.count("\n")) == (runtime.EXIT_INFRASTRUCTURE, 1)
    assert "access denied" in err


def test_segment_starts_a_cluster_in_which_its_actors_and_tasks_have_room(
    monkeypatch, capsys, scenes, checkpoint, tmp_path
):
    asked = []

    def session(cpus):
        asked.append(cpus)
        raise InputError("far enough")

    monkeypatch.setattr("jobs.segment.ray_session", session)
    monkeypatch.setattr("pipelines.cluster.usable_cores", lambda: 2)
    arguments = ["--input", scenes, "--checkpoint", checkpoint, "--output", tmp_path / "out"]
    run(monkeypatch, capsys, "segment", *arguments, "--num-actors", 9)
    assert asked == [9 + 2]


@pytest.mark.ray
def test_labels_without_a_mask_are_an_incomplete_job(
    monkeypatch, capsys, ray_session, scenes, checkpoint, tmp_path
):
    half = tmp_path / "half"
    shutil.copytree(scenes, half)
    for path in (*half.glob("images/*1.jpg"), *half.glob("labels/*1.png")):
        path.unlink()
    arguments = ["--checkpoint", checkpoint, "--output", tmp_path / "out"]
    code, out, _ = run(monkeypatch, capsys, "segment", "--input", half, *arguments)
    assert code == 0, out
    arguments = ["--masks", tmp_path / "out", "--output", tmp_path / "scores", "--labels"]
    code, _, err = run(monkeypatch, capsys, "evaluate", *arguments, scenes)
    assert (code, err.count("\n")) == (runtime.EXIT_INCOMPLETE, 1)
    assert "1 of 3 labels" in err
    code, out, _ = run(monkeypatch, capsys, "evaluate", *arguments, scenes, "--allow-missing")
    assert code == 0
    assert "2 images scored" in out


def test_a_class_list_that_repeats_a_name_is_named(monkeypatch, capsys, scenes, tmp_path):
    (scenes / "classes.json").write_text(json.dumps({"names": ["a", "b", "a"]}))
    code, _, err = run(
        monkeypatch, capsys, "prepare", "--input", scenes, "--output", tmp_path / "out"
    )
    assert (code, err.count("\n")) == (runtime.EXIT_BAD_INPUT, 1)
    assert "['a']" in err


@pytest.mark.ray
@pytest.mark.parametrize("damage", ["missing", "flipped", "not json"])
def test_a_damaged_checkpoint_is_named(
    monkeypatch, capsys, ray_session, scenes, checkpoint, tmp_path, damage
):
    weights = checkpoint / "model.safetensors"
    if damage == "missing":
        weights.unlink()
    elif damage == "flipped":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    else:
        (checkpoint / "config.json").write_text("{")
    code, _, err = run(
        monkeypatch,
        capsys,
        "segment",
        *["--input", scenes, "--checkpoint", checkpoint, "--output", tmp_path / "out"],
    )
    assert (code, err.count("\n")) == (runtime.EXIT_BAD_INPUT, 1)
    assert str(checkpoint) in err
    assert not (tmp_path / "out").exists()
