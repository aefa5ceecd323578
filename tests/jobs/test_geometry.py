"""The geometry job: a table for every net that has a name, and one line where there is none."""

from __future__ import annotations

import sys
from typing import get_args

import pytest

from jobs import geometry, runtime
from jobs.recipes import RecipeName
from tests.support.tiny import save_checkpoint

PARAMETERS = {
    "voc-fcn8s": "134,362,751",
    "voc-fcn-alexnet": "56,954,261",
    "voc-fcn-googlenet": "5,995,077",
    "nyud-fcn32s-color": "134,424,424",
    "nyud-fcn32s-color-hha": "268,848,848",  # twice that
    "camvid-fcn8s": "41,475,169",  # fc6 and fc7 with 1,024 channels
}


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["jobs/geometry.py", *arguments])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        geometry.main()
    output = capsys.readouterr()
    return ended.value.code, output.out, output.err


def test_every_recipe_has_a_table_and_published_nets_their_parameters(monkeypatch, capsys):
    for name in get_args(RecipeName):
        code, out, _ = run(monkeypatch, capsys, "--recipe", name)
        assert code == 0
        assert f"parameters: {PARAMETERS.get(name, '')}" in out


def test_a_checkpoint_has_the_table_of_its_own_net(monkeypatch, capsys, tmp_path):
    save_checkpoint(tmp_path, head="fcn16s")
    code, out, _ = run(monkeypatch, capsys, "--checkpoint", str(tmp_path))
    assert code == 0
    assert out.startswith("FCN-16s narrow (VGG16 layout, width 0.0625, fc 16)")
    code, _, err = run(monkeypatch, capsys, "--checkpoint", str(tmp_path), "--head", "fcn32s")
    assert (code, "leave out --backbone, --head" in err) == (runtime.EXIT_BAD_INPUT, True)


def test_the_classifier_has_its_average_pool(monkeypatch, capsys):
    arguments = ["--backbone", "googlenet", "--head", "classifier", "--size", "224", "224"]
    code, out, _ = run(monkeypatch, capsys, *arguments)
    assert code == 0
    line = next(line for line in out.splitlines() if line.startswith("pool5"))
    assert " ".join(line.split()) == "pool5 average pool 1024 7 1 0 1 x 1 907 32 126"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--size", "0", "5"], "got 0 x 5"),
        (["--head", "classifier", "--size", "20", "20"], "20 x 20 pixels is too small"),
        (["--recipe", "voc-fcn8s", "--head", "fcn32s"], "leave out --backbone, --head"),
    ],
)
def test_what_has_no_table_is_bad_input_in_one_line(monkeypatch, capsys, arguments, text):
    code, _, err = run(monkeypatch, capsys, *arguments)
    assert (code, err.count("\n")) == (runtime.EXIT_BAD_INPUT, 1)
    assert text in err
