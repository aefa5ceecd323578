"""The pipeline tells of a unit when it is done."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow as pa
import pytest

from fcn_model import ClassList
from pipelines.masks.generation import Generation
from pipelines.segmentation import pipeline
from pipelines.segmentation.stages import Job
from pipelines.segmentation.unit_row import UnitRow
from pipelines.storage import ObjectRef
from pipelines.units import Unit

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore:.ray_remote_args")]

WAIT_SECONDS = 60.0


def wait_for_the_first_receipt(table: pa.Table, job: Job) -> pa.Table:
    """In place of decoding: the second unit waits for a file; the job's output says which."""
    if UnitRow.without_records(table).planned.start == 1:
        until = time.monotonic() + WAIT_SECONDS
        while not Path(job.output).exists() and time.monotonic() < until:
            time.sleep(0.05)
    return table


class Nothing:
    """In place of the network."""

    def __init__(self, job: Job) -> None:
        pass

    def __call__(self, table: pa.Table) -> pa.Table:
        return table


def receipt(table: pa.Table, job: Job) -> pa.Table:
    """In place of encoding: what the first stage has seen."""
    start = UnitRow.without_records(table).planned.start
    return pa.table({"receipt": [json.dumps({"start": start, "told": Path(job.output).exists()})]})


def test_a_receipt_does_not_wait_for_the_next_unit(ray_session, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "fetch_and_decode", wait_for_the_first_receipt)
    monkeypatch.setattr(pipeline, "Infer", Nothing)
    monkeypatch.setattr(pipeline, "encode_and_commit", receipt)
    told = tmp_path / "told"
    job = Job(
        checkpoint="",
        output=str(told),
        generation=Generation(model="m", network="n", precision="fp32", max_pixels=1),
        classes=ClassList(names=("a",)),
        batch_pixels=1,
        tile_pixels=1,
        record_seconds=1,
        actors_per_node=1,
    )
    shard = ObjectRef("file:///s.parquet", "e", 1)
    units = (Unit("parquet", (shard,), start=start, stop=start + 1) for start in range(2))
    seen = []
    for each in pipeline.run(job, [UnitRow(unit.to_json()) for unit in units], actors=1):
        told.touch()
        seen.append(each)
    assert seen == [{"start": 0, "told": False}, {"start": 1, "told": True}]
