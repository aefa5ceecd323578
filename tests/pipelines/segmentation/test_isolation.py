"""A unit done alone: each record that breaks its process is one error row, the rest is as ever."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.errors import InputError
from pipelines.masks.generation import data_uri
from pipelines.segmentation import child, isolation, messages
from pipelines.segmentation.confined import ChildError
from pipelines.segmentation.inference import Infer
from pipelines.segmentation.isolation import Limits, segment_alone, tried
from pipelines.segmentation.stages import Job, encode_and_commit, encoded, fetch_and_decode
from pipelines.segmentation.unit_row import Item, UnitRow
from tests.support import made, poison
from tests.support.stage_job import job_for, unit_of

LIMITS = Limits(record_seconds=6, record_bytes=250 << 20)
"""On a busy machine it takes seconds to grow so far."""


def blocks(seed: int, height: int = 48, width: int = 72) -> np.ndarray:
    """(H, W, 3) uint8: six blocks of colour."""
    side = np.ones((height // 2, width // 3, 1), np.uint8)
    return np.kron(made.picture(seed, 2, 3), side)


def rows_of(job: Job, receipt: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the part that a receipt names."""
    file = storage.join(data_uri(job.output, job.generation), receipt["part"])
    return pq.read_table(io.BytesIO(storage.read_bytes(file))).to_pylist()


def children() -> list[psutil.Process]:
    """Our children of isolation that live."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if "pipelines.segmentation.child" in process.cmdline()
    ]


def test_records_that_break_their_process_become_one_error_row_each_and_the_rest_stays_as_it_was(
    tmp_path, monkeypatch
):
    def marked(seed: int, stage: str, act: str) -> bytes:
        return made.png(poison.poisoned(blocks(seed), stage, act))

    files = {
        "0.png": made.png(blocks(0)),
        "1.png": marked(1, "decode", "segfault"),
        "2.png": marked(2, "decode", "grow"),
        "3.png": marked(3, "decode", "hang"),
        "4.png": made.png(blocks(4, 42, 69)),
        "5.png": marked(5, "decode", "once"),
        "6.png": made.png(made.picture(6))[:300],
        "7.png": made.png(blocks(7, 30, 51)),
        "8.png": marked(8, "network", "segfault"),
    }
    row = unit_of(tmp_path / "images", files)
    monkeypatch.syspath_prepend(str(poison.install(tmp_path / "poison")))
    job = job_for(tmp_path)

    receipt = segment_alone(row, job, LIMITS)

    assert receipt["outcome"] == "committed", receipt
    assert children() == []
    rows = rows_of(job, receipt)
    assert [(row["error_kind"], row["attempts"]) for row in rows] == [
        ("", 1),
        ("crash", 2),
        ("oom", 2),
        ("timeout", 2),
        ("", 1),
        ("", 2),
        ("truncated", 1),
        ("", 1),
        ("crash", 2),
    ]
    assert rows[1]["error"] == "SIGSEGV while decoding (try 2, alone)"
    assert rows[8]["error"] == "SIGSEGV in the network (try 2, alone)"
    assert not any(row["transient"] for row in rows)
    assert receipt["stats"]["constant"] == 0
    kept = [0, 4, 5, 6, 7]
    together = done_together(row, job)
    assert [as_usual(rows[index]) for index in kept] == [
        as_usual(together[index]) for index in kept
    ]


def as_usual(row: dict[str, Any]) -> dict[str, Any]:
    """A row without the number of its tries."""
    return {name: value for name, value in row.items() if name != "attempts"}


def done_together(row: UnitRow, job: Job) -> list[dict[str, Any]]:
    """What the usual stages make of the unit in this process, which the poison does not reach."""
    usual = replace(job, generation=replace(job.generation, max_pixels=100_000))
    table = Infer(usual)(fetch_and_decode(pa.Table.from_pylist([row.new()]), usual))
    receipt = json.loads(encode_and_commit(table, usual)["receipt"][0].as_py())
    assert receipt["outcome"] == "committed", receipt
    return rows_of(usual, receipt)


FATES: dict[str, tuple[bool, bool] | None] = {
    "ok": None,
    "own": (False, True),
    "used": (False, False),
    "foreign": (True, True),
}
"""What can become of a try: ``foreign`` and ``fresh`` of its ChildError, None if it succeeds."""


def test_a_record_is_blamed_by_a_fresh_process_in_a_second_try_or_else_in_the_third():
    item = Item("k", "u", "e", "encoded", b"data")
    for fates in itertools.product(FATES, repeat=3):
        calls: list[str] = []

        def segment(item: Item, calls=calls, fates=fates) -> Item:
            calls.append(fates[len(calls)])
            death = FATES[calls[-1]]
            if death is None:
                return replace(item, form="png")
            raise ChildError("oom", "too much", foreign=death[0], fresh=death[1])

        done = tried(item, segment)
        ends = [index for index, fate in enumerate(fates) if fate == "ok"]
        ends += [index for index, fate in enumerate(fates) if fate == "own" and index > 0]
        assert done.attempts == len(calls) == min([*ends, 2]) + 1, fates
        if calls[-1] == "ok":
            assert done == replace(item, form="png", attempts=len(calls))
        else:
            text = f"too much (try {len(calls)}, alone)"
            assert done == replace(item.failed("oom", text), attempts=len(calls))


def test_a_child_that_cannot_start_fails_the_unit_and_blames_no_record(tmp_path, monkeypatch):
    row = unit_of(tmp_path / "images", {"0.png": made.png(made.picture(0))})
    job = job_for(tmp_path)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    receipt = segment_alone(row, job, LIMITS)
    assert receipt["outcome"] == "failed"
    assert "decode ended before it had a record" in receipt["failed"]
    assert "exit status 1 while starting" in receipt["failed"]
    assert not (tmp_path / "out").exists()


def test_a_unit_full_of_culprits_fails_instead_of_becoming_error_rows(tmp_path, monkeypatch):
    files = {f"{index}.png": made.png(made.picture(index)) for index in range(4)}
    row = unit_of(tmp_path / "images", files)
    job = job_for(tmp_path)

    def segment(self, item: Item) -> Item:
        raise ChildError("crash", "SIGILL while decoding", foreign=False, fresh=True)

    monkeypatch.setattr(isolation.Children, "segment", segment)
    monkeypatch.setattr(isolation, "CULPRITS", 3)
    receipt = segment_alone(row, job, LIMITS)
    assert receipt["outcome"] == "failed"
    assert "more than 3 records end their processes, the last by SIGILL" in receipt["failed"]
    monkeypatch.setattr(isolation, "CULPRITS", 4)
    assert segment_alone(row, job, LIMITS)["stats"]["errors"] == {"crash": 4}


def test_a_child_does_not_outlive_a_parent_that_is_killed_while_it_hangs(tmp_path):
    picture = poison.poisoned(made.picture(0), "decode", "hang")
    row = unit_of(tmp_path / "images", {"0.png": made.png(picture)})
    job = job_for(tmp_path)
    folder = poison.install(tmp_path / "poison")
    code = """
import json, sys
from pipelines.segmentation import isolation, messages, unit_row
job = messages.job_in(json.loads(sys.argv[1]))
isolation.segment_alone(unit_row.UnitRow(sys.argv[2]), job, isolation.Limits())
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(messages.job_out(job)), row.unit],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
    )
    with parent:
        wait_for((folder / "hanging").exists)
        (hanging,) = children()
        assert hanging.ppid() == parent.pid
        parent.send_signal(signal.SIGKILL)
    wait_for(lambda: not hanging.is_running())


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds, but not for ever."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_program_tells_its_phases_and_passes_errors_on_as_text(tmp_path, monkeypatch):
    class FakeInfer:
        def __init__(self, job: Job) -> None:
            self.seen = 0

        def __call__(self, table: pa.Table) -> pa.Table:
            self.seen += 1
            row = UnitRow.from_table(table)
            (item,) = row.items
            if self.seen == 3:
                row.failed = "network: RuntimeError: CUDA error"
            mask = bytes(item.height * item.width)
            row.items = [replace(item, form="mask", data=mask, planes=())]
            return row.to_table()

    monkeypatch.setattr("pipelines.segmentation.inference.Infer", FakeInfer)
    job = replace(job_for(tmp_path), planes=("depth",))
    item = Item("käy", "u", "e", "rgb", bytes(2 * 3 * 3), (bytes(2 * 3 * 2),), 2, 3)
    requests = [messages.pack({"job": messages.job_out(job)})]
    requests += [messages.pack(*messages.item_out(item))] * 2
    answers = io.BytesIO()

    child.serve(child.network, io.BytesIO(b"".join(requests)), answers)

    answers.seek(0)
    blank, ready, phase, answer, failed = iter(lambda: messages.read(answers), None)
    assert blank[0] == phase[0] == {"phase": "while encoding"}
    assert ready == ({}, b"")
    assert failed[0]["raised"] == "RuntimeError: network: RuntimeError: CUDA error"
    expected = encoded(replace(item, form="mask", data=bytes(6), planes=()), job.classes)
    assert messages.item_in(answer) == expected


def test_jobs_and_records_pass_as_messages_unchanged(tmp_path):
    job = replace(job_for(tmp_path), planes=("depth", "hha"))
    assert messages.job_in(json.loads(json.dumps(messages.job_out(job)))) == job
    item = Item("k", "u", "e", "rgb", b"123456", (b"78", b""), 1, 2, attempts=2, counts=[3, 4])
    received = bytearray(messages.pack(*messages.item_out(item)) + b"fcn1 and so on")
    message = messages.unpack(received)
    assert message is not None
    assert messages.item_in(message) == item
    assert received == b"fcn1 and so on"
    whole = messages.pack(*messages.item_out(item))
    assert all(messages.unpack(bytearray(whole[:size])) is None for size in range(len(whole)))
    with pytest.raises(ValueError, match="a message starts with"):
        messages.unpack(bytearray(bytes(100)))


@pytest.mark.parametrize("field", ["record_seconds", "record_bytes", "start_seconds"])
def test_limits_are_positive(field):
    with pytest.raises(InputError, match=f"{field} must be positive, got 0"):
        Limits(**{field: 0})
