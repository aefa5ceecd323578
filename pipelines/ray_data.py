"""How this project uses Ray Data: settings that fail loudly, and one dataset row per unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
import ray.data
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError

from pipelines.errors import ClusterError

FAILURES = (RayError, ExecutionTimeoutError)
"""What a Ray Data execution raises when Ray, and not the code in its workers, has failed."""

NO_PROGRESS_SECONDS = 2 * 3600.0
"""After how long without any finished unit a job counts as hung. On few cores one unit of large
images may honestly take an hour; too few logical CPUs, which hang for ever, are refused before."""

BLOCK_BYTES = 128 << 20
"""Ray's own default, set each time because training sets another for its stream."""


def context() -> Any:
    """The driver's Ray Data context, set up for this project; returns it for further settings.

    Ray must have been started.
    """
    settings = ray.data.DataContext.get_current()
    settings.max_errored_blocks = 0
    # One kill while a worker loads torch would end the job at Ray's default of 0.
    settings.max_consecutive_actor_init_deaths = 5
    settings.enable_progress_bars = False
    settings.verbose_stats_logs = False
    settings.enable_auto_log_stats = False
    settings.execution_no_progress_timeout_s = NO_PROGRESS_SECONDS
    settings.target_max_block_size = BLOCK_BYTES
    return settings


def last_line(error: BaseException) -> str:
    """The last line of a failure's text, which in Ray's is the cause."""
    return (str(error).strip().splitlines() or [repr(error)])[-1]


def one_row_per_block(rows: Sequence[dict[str, Any]]) -> Any:
    """A dataset with each row in a block of its own, so that units flow through one by one.

    Rows that share a block are committed together at its end, and a killed worker loses them all.
    Raises ClusterError if Ray has no room for them.
    """
    assert rows, "Ray Data cannot make blocks of no rows"
    try:
        return ray.data.from_items(list(rows), override_num_blocks=len(rows))
    except FAILURES as error:
        raise ClusterError(f"Ray could not take the work in: {last_line(error)}") from error
