"""How Ray behaves in a cluster that a job starts for itself and nobody else looks at.

Ray's processes report on themselves many times a second, to a dashboard and metrics that such a
cluster does not have, and take that time from the work. All of these are environment variables,
which the cluster's processes inherit; each was found in Ray 2.60, by the name given here.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """An environment variable that Ray reads: its name, our value and Ray's default."""

    name: str
    ours: str
    rays: str


SETTINGS = (
    # The agent would look at every process of the machine and serve numbers to nobody.
    Setting("RAY_enable_metrics_collection", "0", "1"),
    Setting("REPORTER_UPDATE_INTERVAL_MS", "3600000", "5000"),
    Setting("RAY_task_events_report_interval_ms", "0", "1000"),
    Setting("RAY_TRAIN_METRICS_ENABLED", "0", "1"),
    # Nobody reads how long each of their events waited; to note it takes a quarter of a wake-up.
    Setting("RAY_event_stats", "0", "1"),
    # Logs are not sent to the driver: none is to be looked for ten times a second.
    Setting("RAY_LOG_MONITOR_MANY_FILES_THRESHOLD", "0", "1000"),
    Setting("LOG_NAME_UPDATE_INTERVAL_S", "3600", "0.5"),
    # Every worker wakes a hundred times a second to look for signals, idle ones too, of which Ray
    # keeps one for each free logical CPU. Those in use are used more often than every 20 s.
    Setting("RAY_num_workers_soft_limit", "2", "-1"),
    Setting("RAY_idle_worker_killing_time_threshold_ms", "20000", "1000"),
    # Ray would have the process that computes give way to its own, and to everything else.
    Setting("RAY_worker_niceness", "0", "15"),
    # Nobody announces that the one node will be taken away.
    Setting("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0", "1"),
)


def prepare(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set what is not set, if the job is to start its own cluster. Comes before Ray is imported."""
    if not environment.get("RAY_ADDRESS"):
        for setting in SETTINGS:
            environment.setdefault(setting.name, setting.ours)
