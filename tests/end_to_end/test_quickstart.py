"""The README's first command, small: it ends with what it promises, and can be run again."""

from __future__ import annotations

import re
import sys

import pyarrow.parquet as pq
import pytest

from jobs import quickstart

pytestmark = pytest.mark.ray


def test_the_quick_start_tells_where_everything_lies_and_continues_when_run_again(
    ray_session, tmp_path, monkeypatch, capsys
):
    options = ["--train-images", "6", "--val-images", "3", "--epochs", "1"]
    monkeypatch.setattr(sys, "argv", ["quickstart", "--output", str(tmp_path), *options])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    outputs = []
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            quickstart.main()
        output = capsys.readouterr()
        assert ended.value.code == 0, output.err
        outputs.append(output.out)
    places = dict(re.findall(r"^(\w[\w ]*): +file://(\S+)$", outputs[0], re.MULTILINE))
    assert {"masks", "panel", "report", "tables", "checkpoint"} <= set(places)
    said = float(re.findall(r"mean IU: +([0-9.]+)", outputs[0])[-1])
    summary = pq.read_table(f"{places['tables']}/summary.parquet").to_pylist()[0]
    assert said == pytest.approx(summary["mean_iu"], abs=1e-4)
    assert "1 units" in outputs[1] or "1 done before" in outputs[1]
    assert "resuming run" in outputs[1]
