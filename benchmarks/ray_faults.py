"""Faults of Ray and its machines that take too long for the tests, once each.

    python -m benchmarks.ray_faults
    python -m benchmarks.ray_faults --only node-loss

Each runs jobs/segment.py over 40 small images and does one thing to it: takes away a node, ends the
head's control service, fills the disk, sets the memory killer on it, asks it to stop, loses calls
between Ray's processes. Then the same command is run until it ends with 0. The line that is
printed says what was done and how often, and what stands in the output; it exits with 1 if an image
is lost or stands twice, or if nothing was done. Row numbers are those of docs/failures.md.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import psutil
import tyro

from benchmarks.machine import describe
from benchmarks.ray_trial import Bill, Trial, alive

FIRST_PARTS = 3
"""That stand before something is done to a run."""

LOOPBACK = "127.0.0.2"
"""Clients replace 127.0.0.1 by the machine's outward address, where nobody would listen."""

ROOM = 4_300 << 20
"""For the job without the image that grows by 3 GiB; not for both."""

FULL = {"local_fs_capacity_threshold": 0.05, "automatic_object_spilling_enabled": False}
"""A disk counts as full from 5% on, and takes nothing. The first alone still lets Ray spill."""

Name = Literal["node-loss", "head-loss", "full-disk", "memory-killer", "sigterm", "lost-calls"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which faults."""

    only: Name | None = None
    """This one alone."""


def node_loss() -> Bill:
    """Row 2: a node goes away at once, with the actor that holds the network."""
    from ray.cluster_utils import Cluster  # noqa: PLC0415  (reads the environment)

    with Trial() as trial:
        quiet: dict[str, Any] = {"node_ip_address": LOOPBACK, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **quiet})
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=4, **quiet)
            run = trial.start({"RAY_ADDRESS": cluster.address})
            before = trial.wait_for_parts(run, FIRST_PARTS)
            node, workers = _node_of_the_network(cluster)
            cluster.remove_node(node, allow_graceful=False)
            gone = time.monotonic()
            trial.wait_for_parts(run, before + 3)  # two may have been on their way
            resumed = time.monotonic() - gone
            bill = Bill(f"1 of 2 nodes removed with its {workers} workers", 1)
            bill.note = f"went on after {resumed:.1f} s "
            bill.codes.append(trial.end(run))
            return trial.finish(bill)
        finally:
            cluster.shutdown()


def _node_of_the_network(cluster: Any) -> tuple[Any, int]:
    for node in cluster.worker_nodes:
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        workers = raylet.children(recursive=True)
        if any("Infer" in " ".join(worker.cmdline()) for worker in workers):
            return node, len(workers)
    raise RuntimeError("no node holds the network")


def head_loss() -> Bill:
    """Row 4: the control service is killed; a new cluster knows nothing of the old one."""
    with Trial() as trial:
        run = trial.start()
        trial.wait_for_parts(run, FIRST_PARTS)
        services = [one for one in run.family() if "gcs_server" in " ".join(one.cmdline())]
        for service in services:
            service.kill()
        killed = time.monotonic()
        bill = Bill("control service killed", len(services))
        bill.codes.append(trial.end(run))
        bill.note = f"the job ended after {time.monotonic() - killed:.1f} s "
        return trial.finish(bill)


def sigterm() -> Bill:
    """Row 14: the job is told to stop, as before a machine is taken away."""
    with Trial() as trial:
        run = trial.start()
        trial.wait_for_parts(run, FIRST_PARTS)
        family = run.family()
        run.process.send_signal(signal.SIGTERM)
        told = time.monotonic()
        code = run.process.wait(60)
        bill = Bill("SIGTERM to the driver", 1, [code])
        bill.note = (
            f"ended after {time.monotonic() - told:.1f} s, {alive(family, 30)} left running "
        )
        return trial.finish(bill)


def lost_calls() -> Bill:
    """Row 38: calls between Ray's processes fail before or after they are carried out."""
    calls = (
        "CoreWorkerService.grpc_client.PushTask",
        "NodeManagerService.grpc_client.RequestWorkerLease",
        "NodeManagerService.grpc_client.ReturnWorkerLease",
    )
    chance = {"num_failures": 10, "req_failure_prob": 25, "resp_failure_prob": 25}
    environment = {
        "RAY_testing_rpc_failure": json.dumps(dict.fromkeys(calls, chance)),
        "RAY_testing_rpc_failure_avoid_intra_node_failures": "0",
    }
    with Trial() as trial:
        bill = Bill("calls between Ray's processes failed", 0)
        bill.codes.append(trial.end(trial.start(environment)))
        bill.times = trial.logged("Inject RPC").total()
        return trial.finish(bill)


def full_disk() -> Bill:
    """Row 12: the object store is full, and the disk that it would spill to as well."""
    import ray  # noqa: PLC0415

    with Trial(size=(200, 300)) as trial:  # too large to travel within Ray's messages
        ray.init(
            address="local",
            num_cpus=8,
            _node_ip_address="127.0.0.1",
            include_dashboard=False,
            object_store_memory=80 << 20,
            log_to_driver=False,
            _system_config=FULL,
        )
        held: list[Any] = []
        try:
            bill = Bill("object store filled, and the disk full", _fill_the_store(ray, held))
            run = trial.start({"RAY_ADDRESS": ray.get_runtime_context().gcs_address})
            bill.codes.append(trial.end(run))
            told = run.log.read_text().count("is full")
            bill.note = f"{len(trial.parts())} parts meanwhile, told {told} times "
        finally:
            held.clear()
            ray.shutdown()
        return trial.finish(bill)


def _fill_the_store(ray: Any, held: list[Any]) -> int:
    """Put ever smaller objects until the store takes none; how often it refused one."""
    refused = 0
    for size in (1 << 20, 1 << 17, 1 << 14):
        try:
            held.extend(ray.put(np.zeros(size, np.uint8)) for _ in range(100))
        except ray.exceptions.OutOfDiskError:
            refused += 1
    return refused


def memory_killer() -> Bill:
    """Row 13: an image takes so much memory that Ray kills its worker, again and again."""
    memory = psutil.virtual_memory()
    environment = {
        "RAY_memory_usage_threshold": f"{(memory.total - memory.available + ROOM) / memory.total}",
        "RAY_memory_monitor_refresh_ms": "100",
    }
    with Trial() as trial:
        environment |= trial.poison("17.png", "decode", "grow", "oom")
        run = trial.start(environment, "--record-bytes", str(500 << 20))
        bill = Bill("workers killed for memory", 0, [trial.end(run)])
        bill.times = trial.logged("worker(s), kill details").total()
        return trial.finish(bill)


FAULTS: dict[Name, Callable[[], Bill]] = {
    "node-loss": node_loss,
    "head-loss": head_loss,
    "full-disk": full_disk,
    "memory-killer": memory_killer,
    "sigterm": sigterm,
    "lost-calls": lost_calls,
}


def main() -> None:
    """Run the benchmark that the command line describes."""
    options = tyro.cli(Options, description=__doc__)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["RAY_AUTH_MODE"] = "token"  # of every cluster that is started here
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ.pop("RAY_ADDRESS", None)
    print(describe("ray"), flush=True)
    bad = 0
    for name, fault in FAULTS.items():
        if options.only in (None, name):
            bill = fault()
            print(bill.line(name), flush=True)
            bad += not bill.good
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
