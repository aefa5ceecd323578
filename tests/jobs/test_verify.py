"""What an operator sees of verify and gc: a table, the names of what is wrong, an exit code."""

from __future__ import annotations

import importlib
import json
import re
import sys

import pytest

from jobs import runtime
from tests.support import outputs


@pytest.fixture
def job(monkeypatch, capsys):
    """Run a job's main in this process; returns its exit code and output."""
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def run(name, *arguments):
        module = importlib.import_module(f"jobs.{name}")
        monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            module.main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return run


@pytest.fixture
def made(tmp_path):
    source = outputs.archive(tmp_path / "in", "abcdefgh")
    outputs.night((tmp_path / "out").as_uri(), source)
    return tmp_path / "out"


def figures(out):
    """The table that was printed."""
    lines = re.findall(r"^([a-z ]+?) {2,}([\d,]+)(?: {2}.*)?$", out, re.MULTILINE)
    return {name: int(value.replace(",", "")) for name, value in lines}


def test_verify_of_a_finished_night_ends_well_and_says_how_much_that_was(job, made, tmp_path):
    report = tmp_path / "report.json"
    given = ["--input", tmp_path / "in", "--deep", "--json", report]
    code, out, err = job("verify", "--output", made, *given)
    assert (code, err) == (0, "")
    table = figures(out)
    size = sum(path.stat().st_size for path in made.glob("data/*/*.parquet"))
    assert (table["records"], table["ok"], table["parts"], table["bytes"]) == (8, 8, 3, size)
    assert (table["masks decoded"], table["input records"]) == (8, 8)
    for kind in ("error rows", "lost", "doubled", "damaged", "foreign", "stray", "missing"):
        assert table[kind] == 0
    stored = json.loads(report.read_text())
    assert (stored["records"], stored["problems"]) == (8, [])


def test_verify_names_what_is_wrong_and_ends_with_3(job, made, tmp_path):
    part = next(made.glob("data/*/*.parquet"))
    part.unlink()
    (made / "data" / "notes.txt").write_text("mine")
    report = tmp_path / "report.json"
    code, out, err = job("verify", "--output", made, "--json", report)
    assert code == runtime.EXIT_INCOMPLETE
    assert err.count("\n") == 1
    assert re.search(r"1 lost, 1 foreign|1 foreign, 1 lost", err)
    assert f"lost: {part.as_uri().replace('%3D', '=')}: it is not there" in out
    assert "foreign: " in out
    assert figures(out)["lost"] == figures(out)["foreign"] == 1
    assert {one["kind"] for one in json.loads(report.read_text())["problems"]} == {
        "lost",
        "foreign",
    }


def test_a_key_that_stands_twice_fails_only_if_that_is_asked_for(job, tmp_path):
    source = outputs.archive(tmp_path / "in", "abcdefgh")
    output = tmp_path / "out"
    outputs.night(output.as_uri(), source, change=lambda rows: [rows[0] | {"key": "k"}, *rows[1:]])
    code, out, _ = job("verify", "--output", output)
    assert code == 0
    assert figures(out)["same key"] == 3
    code, _, err = job("verify", "--output", output, "--strict")
    assert code == runtime.EXIT_INCOMPLETE
    assert "'k'" in err


@pytest.mark.parametrize("name", ["verify", "gc"])
def test_an_output_that_is_none_is_bad_input(job, tmp_path, name):
    for folder in (tmp_path, tmp_path / "missing"):
        code, _, err = job(name, "--output", folder)
        assert (code, err.count("\n")) == (runtime.EXIT_BAD_INPUT, 1)
        assert "--output of jobs/segment.py" in err


def test_gc_shows_first_and_then_removes(job, made):
    of = outputs.generation()
    uri = outputs.write_part(made.as_uri(), of, outputs.units(made.as_uri())[0], retry=1)
    outputs.put_snapshot(made.as_uri(), outputs.snapshot(made.as_uri(), of, [uri]))
    outputs.make_older(made, 5)
    options = ["--output", made, "--keep-snapshots", "1", "--grace-days", "4"]
    before = outputs.everything(made)
    assert figures(job("gc", "--output", made)[1])["stray part"] == 0
    code, out, _ = job("gc", *options)
    assert (code, outputs.everything(made)) == (0, before)
    assert "--remove does it" in out
    code, out, _ = job("gc", *options, "--remove")
    assert code == 0
    assert "removed" in out
    assert len(list(made.glob("data/*/*.parquet"))) == 3
    assert job("verify", "--output", made)[0] == 0
    code, _, err = job("gc", *options[:2], "--keep-snapshots", "0")
    assert code == runtime.EXIT_BAD_INPUT
    assert "--keep-snapshots" in err
