"""Units through Ray Data: fetch and decode, the network, encode and commit.

The dataset's rows are references to units, one to a block, so that units flow through one by one.
Receipts come back for progress only; a unit is done if its part exists, and nothing else counts.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from ray.data import ActorPoolStrategy

from pipelines import cluster, ray_data
from pipelines.errors import ClusterError
from pipelines.kept_memory import KEEP_MEMORY, runtime_env
from pipelines.segmentation.inference import Infer
from pipelines.segmentation.stages import Job, encode_and_commit, fetch_and_decode
from pipelines.segmentation.unit_row import UnitRow
from pipelines.under_way import limit_units

ACTOR_RESTARTS = 20
"""Of one actor during one wave. Ray's default is for ever, which a record that kills its worker
would use."""

TASK_RETRIES = 1
"""How often Ray gives a unit to another worker when one dies of it; then the unit is left out."""

FEWEST_LEFT_OUT = 8

UNITS_PER_ACTOR = 8
"""That are decoded or wait to be committed, beside as many in their first stage as there are CPUs:
twice what an actor takes at a time. What a killed run had under way is done again."""


def run(job: Job, rows: Sequence[UnitRow], actors: int) -> Iterator[dict[str, Any]]:
    """The receipts of units, as they come, in any order.

    A unit whose worker died has none. Raises ClusterError when Ray cannot go on.
    """
    gpus = cluster.gpus()
    context = ray_data.context()
    # Elsewhere a dropped block is lost data. Here it is a unit without a part, which is noticed.
    context.max_errored_blocks = max(FEWEST_LEFT_OUT, len(rows) // 4)
    limit_units(context, cluster.cpus() + UNITS_PER_ACTOR * actors)
    dataset = ray_data.one_row_per_block([row.new() for row in rows])
    one_unit: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow"}
    task: dict[str, Any] = {
        "num_cpus": 1,
        "max_retries": TASK_RETRIES,
        "runtime_env": runtime_env(KEEP_MEMORY, gpu=False),
        **one_unit,
    }
    with warnings.catch_warnings():
        # The only way to make restarts finite; it goes away in Ray 2.64, which pyproject excludes.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        dataset = dataset.map_batches(fetch_and_decode, fn_kwargs={"job": job}, **task)
        dataset = dataset.map_batches(
            Infer,
            fn_constructor_args=[job],
            num_cpus=1,
            num_gpus=1 if gpus else 0,
            runtime_env=runtime_env(KEEP_MEMORY, gpu=gpus > 0),
            compute=ActorPoolStrategy(
                size=actors, max_tasks_in_flight_per_actor=4, max_concurrent_calls_per_actor=2
            ),
            max_restarts=ACTOR_RESTARTS,
            max_task_retries=TASK_RETRIES,
            **one_unit,
        )
        dataset = dataset.map_batches(encode_and_commit, fn_kwargs={"job": job}, **task)
        try:
            batches = dataset.iter_batches(
                batch_size=None,
                batch_format="pyarrow",
                prefetch_batches=0,  # with 1, a receipt would wait for that of the next unit
            )
            for batch in batches:
                yield from map(json.loads, batch["receipt"].to_pylist())
        except ray_data.FAILURES as error:
            raise ClusterError(f"Ray could not go on: {ray_data.last_line(error)}") from error
        finally:
            context.max_errored_blocks = 0
