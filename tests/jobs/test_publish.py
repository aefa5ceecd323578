"""What an operator sees of publish and export, and what they refuse."""

from __future__ import annotations

import importlib
import sys

import pytest
from deltalake import DeltaTable

from jobs import runtime
from pipelines import storage
from pipelines.masks import head, snapshots
from pipelines.masks.generation import Generation
from pipelines.masks.head import Head
from tests.support.mask_output import G1, G2, made_up, name_of, publish, write_part


@pytest.fixture
def run(monkeypatch, capsys):
    def run(name, *arguments):
        module = importlib.import_module(f"jobs.{name}")
        monkeypatch.setattr(sys, "argv", [f"jobs/{name}.py", *map(str, arguments)])
        monkeypatch.setattr("signal.signal", lambda *_: None)
        with pytest.raises(SystemExit) as ended:
            module.main()
        output = capsys.readouterr()
        return ended.value.code, output.out, output.err

    return run


@pytest.fixture
def output(tmp_path):
    """Two snapshots of G1, the second published, and one of G2, which lacks unit 2."""
    output = storage.parse_uri(str(tmp_path / "out"))
    snapshots.extend(output, G1, [made_up(1, rows=100, errors={"empty": 4})], "run-one")
    publish(output, snapshots.extend(output, G1, [made_up(2)], "run-two"))
    snapshots.extend(output, G2, [made_up(1)], "run-three")
    return output


def _stars(text):
    """Generation and number of the snapshot that the table marks as published."""
    marked, generation = [], ""
    for line in text.splitlines():
        if line.startswith("generation"):
            generation = line.split()[1]
        if line.startswith("*"):
            marked.append((generation, int(line.split()[1])))
    return marked


def test_publish_alone_shows_every_snapshot_and_changes_nothing(run, output):
    record = Generation(model="m" * 64, network="fcn8s", precision="fp32", max_pixels=10)
    storage.create(storage.join(output, "_fcn", "gen", f"{G1}.json"), record.to_json())
    code, out, _ = run("publish", "--output", output)
    assert code == 0
    assert out.startswith(f"published: snapshot 2 of generation {G1}\n")
    assert _stars(out) == [(G1, 2)]
    assert "(fcn8s, fp32, model mmmmmmmmmmmm)" in out
    rows = [line.lstrip("* ").split() for line in out.splitlines() if "run-" in line]
    assert [(row[0], row[1], row[2], row[3], row[5]) for row in rows] == [
        ("2", "2", "228", "4", "run-two"),
        ("1", "1", "100", "4", "run-one"),
        ("1", "1", "128", "0", "run-three"),
    ]
    assert head.read(output) == Head(generation=G1, sequence=2)


def test_a_roll_back_needs_a_word_where_units_are_lost(run, output):
    code, _, err = run("publish", "--output", output, "--sequence", 1)
    assert (code, err.count("\n")) == (runtime.EXIT_INCOMPLETE, 1)
    assert name_of(2).unit in err
    assert "--allow-missing" in err
    code, out, _ = run("publish", "--output", output, "--sequence", 1, "--allow-missing", "--hold")
    assert code == 0
    assert "readers lose 1 unit" in out
    assert "held" in out
    assert _stars(out) == [(G1, 1)]
    assert head.read(output) == Head(generation=G1, sequence=1, held=True)
    code, out, _ = run("publish", "--output", output, "--generation", G1)
    assert code == 0
    assert _stars(out) == [(G1, 2)]
    assert head.read(output) == Head(generation=G1, sequence=2)


def test_another_generation_is_published_when_it_has_every_unit(run, output):
    code, _, err = run("publish", "--output", output, "--generation", G2)
    assert code == runtime.EXIT_INCOMPLETE
    assert name_of(2).unit in err
    snapshots.extend(output, G2, [made_up(2)], "run-four")
    code, out, _ = run("publish", "--output", output, "--generation", G2)
    assert (code, _stars(out)) == (0, [(G2, 2)])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--generation", "0" * 16], G2),
        (["--generation", G1, "--sequence", 9], "there are: 1, 2"),
        (["--hold"], "need --generation or --sequence"),
    ],
)
def test_what_is_not_there_cannot_be_published(run, output, arguments, text):
    code, _, err = run("publish", "--output", output, *arguments)
    assert (code, err.count("\n")) == (runtime.EXIT_BAD_INPUT, 1)
    assert text in err
    assert head.read(output) == Head(generation=G1, sequence=2)


def test_without_a_published_snapshot_a_number_needs_its_generation(run, tmp_path):
    output = storage.parse_uri(str(tmp_path / "out"))
    code, _, err = run("publish", "--output", output)
    assert (code, "has no snapshots" in err) == (runtime.EXIT_BAD_INPUT, True)
    snapshots.extend(output, G1, [made_up(1)], "run-one")
    code, out, _ = run("publish", "--output", output)
    assert (code, out.startswith("published: nothing yet")) == (0, True)
    code, _, err = run("publish", "--output", output, "--sequence", 1)
    assert (code, "--generation" in err) == (runtime.EXIT_BAD_INPUT, True)
    code, out, _ = run("publish", "--output", output, "--generation", G1)
    assert (code, _stars(out)) == (0, [(G1, 1)])


def test_export_says_what_it_did(run, tmp_path):
    output = storage.parse_uri(str(tmp_path / "out"))
    code, _, _ = run("export", "--output", output)
    assert code == runtime.EXIT_BAD_INPUT
    publish(output, snapshots.extend(output, G1, [write_part(output, 1)], "run"))
    code, out, _ = run("export", "--output", output)
    assert (code, out.startswith("1 files added, 0 removed: Delta table")) == (0, True)
    code, out, _ = run("export", "--output", output)
    assert (code, out.startswith("nothing to do: Delta table")) == (0, True)
    assert DeltaTable(str(tmp_path / "out")).to_pyarrow_table().num_rows == 3
