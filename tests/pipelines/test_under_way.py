"""How many units a pipeline of Ray Data has begun and not ended."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

import pyarrow as pa
import pytest
from ray.data import ActorPoolStrategy

from pipelines import ray_data
from pipelines.under_way import limit_units

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore:.ray_remote_args")]

UNITS = 40
LIMIT = 6


def begin(table: pa.Table, folder: str) -> pa.Table:
    """The first stage, which is quick."""
    noted(table, folder, "begun")
    return table


class Slow:
    """The actor, slower than all else; it dies of one unit."""

    def __init__(self, deadly: int) -> None:
        self.deadly = deadly

    def __call__(self, table: pa.Table) -> pa.Table:
        time.sleep(0.05)
        if table["unit"][0].as_py() == self.deadly:
            os._exit(1)
        return table


def end(table: pa.Table, folder: str) -> pa.Table:
    """The last stage."""
    noted(table, folder, "ended")
    return table


def noted(table: pa.Table, folder: str, what: str) -> None:
    (Path(folder) / f"{table['unit'][0].as_py()}.{what}").write_text(str(time.time()))


@pytest.mark.parametrize(("limit", "deadly"), [(LIMIT, -1), (LIMIT, 7), (UNITS, -1)])
def test_the_first_stage_does_not_run_ahead_of_the_last_by_more_than_the_limit(
    ray_session: None, tmp_path: Path, limit: int, deadly: int
) -> None:
    context = ray_data.context()
    context.max_errored_blocks = 8
    limit_units(context, limit)
    rows = [{"unit": index} for index in range(UNITS)]
    one = {"batch_size": 1, "batch_format": "pyarrow", "num_cpus": 1, "max_retries": 0}
    actor = {key: value for key, value in one.items() if key != "max_retries"}
    dataset = ray_data.one_row_per_block(rows).map_batches(
        begin, fn_kwargs={"folder": str(tmp_path)}, **one
    )
    dataset = dataset.map_batches(
        Slow,
        fn_constructor_args=[deadly],
        compute=ActorPoolStrategy(size=1, max_tasks_in_flight_per_actor=2),
        max_restarts=2,
        max_task_retries=0,
        **actor,
    )
    dataset = dataset.map_batches(end, fn_kwargs={"folder": str(tmp_path)}, **one)
    ended = {row["unit"] for row in dataset.iter_rows()}
    context.max_errored_blocks = 0
    # Of the deadly one and what its actor had beside it, nothing comes; all others end.
    lost = set(range(UNITS)) - ended
    assert (deadly in lost) if deadly >= 0 else not lost
    assert len(lost) <= 2
    events = [(float(path.read_text()), path.suffix) for path in tmp_path.glob("*.*")]
    counts = list(itertools.accumulate(1 if what == ".begun" else -1 for _, what in sorted(events)))
    if limit == UNITS:
        assert max(counts) > LIMIT + 4  # without a limit it does run ahead
    elif deadly < 0:
        # While its actor still starts nothing runs, and Ray lets the first stage go on.
        begun = [what for _, what in sorted(events)].index(".ended")
        settled = next(i for i, count in enumerate(counts) if i >= begun and count <= limit)
        assert max(counts[settled:]) <= limit
