"""What the cluster can do."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import ray

from pipelines.errors import ClusterError, InputError

LOCAL_CPUS = 8
"""Logical CPUs of a cluster that a job starts for itself: Ray counts one for every actor and task,
and a pipeline with actors hangs without an error where there are too few."""

FEWEST_TASKS = 2
"""Beside the actors: one unit is committed while the next is decoded."""

RECORDED = ("ray", "torch", "torchvision", "pyarrow", "pillow", "numpy", "boto3", "s3fs")


def require_cpus(wanted: int, purpose: str) -> None:
    """Raise ClusterError if the cluster counts fewer logical CPUs than ``purpose`` needs."""
    have = cpus()
    if have < wanted:
        raise ClusterError(
            f"{purpose} need {wanted} logical CPUs, the cluster has {have}, and would hang; start "
            f"Ray with more (ray start --num-cpus={max(wanted, LOCAL_CPUS)}; the number is logical "
            "and may exceed the machine's cores) or ask for fewer workers or actors"
        )


def require_actors(actors: int) -> None:
    """Raise ClusterError if the network's actors and one task beside them do not fit."""
    have = gpus()
    if 0 < have < actors:
        raise ClusterError(f"{actors} actors with a GPU each were asked for, there are {have}")
    require_cpus(actors + 1, "the network's actors and one task beside them")


def refuse_lost_paths(*uris: str) -> None:
    """Raise InputError for output that would lie in Ray's copy of a submitted job's folder."""
    for uri in uris:
        if "/runtime_resources/working_dir_files/" in uri:
            raise InputError(
                f"{uri} lies in Ray's copy of the working directory, which Ray deletes; give a "
                "submitted job s3:// URIs, or absolute paths on a disk that all nodes share"
            )


def actors_per_node(actors: int) -> int:
    """How many of the cluster's ``actors`` a node gets, about."""
    nodes = sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in ray.nodes())
    return -(-actors // max(nodes, 1))


def cpus() -> int:
    """Logical CPUs in the cluster."""
    return int(ray.cluster_resources().get("CPU", 0))


def decoding_tasks(workers: int, *, on_cpus: bool = False) -> int:
    """How many tasks decode at a time beside so many training workers.

    A GPU takes in what several cores decode, so half of the CPUs that are left do that; on a
    cluster of one machine two tasks always run. A worker on CPUs takes in a part of what one task
    decodes, and waits when its cores are taken away: by idle processes, too.
    """
    return max(2, workers if on_cpus else (cpus() - workers) // 2)


def local_cpus(actors: int) -> int:
    """Logical CPUs of a cluster that a job starts for itself, for actors and a task for each core.

    More tasks than cores end no sooner, and each is a process that loads two seconds' worth of
    modules just when the actors load the network: on two cores the first unit waits for all of it.
    """
    return actors + max(FEWEST_TASKS, usable_cores())


def gpus() -> int:
    """GPUs in the cluster."""
    return int(ray.cluster_resources().get("GPU", 0))


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_each(sharers: int) -> int:
    """Threads for each of so many that share the cores of this machine, at least one."""
    return max(1, usable_cores() // sharers)


def versions() -> dict[str, str]:
    """Python, platform and package versions, for records and reports."""
    packages = {name: importlib.metadata.version(name) for name in RECORDED}
    return {"python": platform.python_version(), "platform": platform.platform(), **packages}
