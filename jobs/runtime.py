"""What every job shares: options, the Ray session, signals, error lines and exit codes."""

from __future__ import annotations

import ctypes
import inspect
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn, TypeVar

import tyro

from fcn_model.errors import FCNError
from jobs import local_cluster
from pipelines.errors import ClusterError, IncompleteError, NotPublishedError, StoreError

EXIT_BAD_INPUT = 2
EXIT_INCOMPLETE = 3
EXIT_INFRASTRUCTURE = 4
EXIT_NOT_PUBLISHED = 5
EXIT_CODES = """\
exit codes:

0 done
1 a defect of this program (a traceback says where), or Ray lost the cluster and ended the job
2 bad input: an option, a URI, a data set, a class list, a checkpoint
3 ended, but part of the input has no result
4 infrastructure: the store or the cluster
5 ended, but the quality gate keeps what it made from readers
130 Ctrl-C, 143 SIGTERM"""

M_ARENA_MAX, HEAPS = -8, 2
"""An option of glibc's mallopt, by its number in malloc.h, and what we set it to."""

Options = TypeVar("Options")


_received: list[int] = []
"""The signal that asked the job to end."""


def run_job(options: type[Options], work: Callable[[Options], None]) -> NoReturn:
    """Parse the command line into ``options``, do the work, and exit.

    The docstring of the options class is the job's description.
    """
    _share_heaps()  # before there are threads
    parsed = tyro.cli(
        options,
        description=f"{inspect.getdoc(options)}\n\n{EXIT_CODES}",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    try:
        _handle_signals(_stop)
        work(parsed)
    except FCNError as error:
        _end(_exit_code(error), f"error: {error}")
    except KeyboardInterrupt:
        number = _received[0] if _received else signal.SIGINT
        name = signal.Signals(number).name
        _end(128 + number, f"stopped by {name}; run the same command again to continue")
    sys.exit(0)


def say(text: str) -> None:
    """A line of progress. Flushed, so that a job log shows it when it happens."""
    print(text, flush=True)


def quiet_ray() -> None:
    """Set what Ray reads from the environment when it is imported."""
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Else a task that is killed for want of memory comes back for ever, and its unit stalls.
    os.environ.setdefault("RAY_task_oom_retries", "1")
    local_cluster.prepare()


def _share_heaps() -> None:
    """Let this process's threads, of which Ray starts dozens, free memory for each other.

    glibc has a heap for many of them, and each stays as large as it ever was.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # only glibc has it
        mallopt(M_ARENA_MAX, HEAPS)


@contextmanager
def ray_session(cpus: int | None = None) -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names, or start one here and end it afterwards.

    One that is started has so many logical CPUs, or by default one for each core and `LOCAL_CPUS`
    at least.
    """
    quiet_ray()
    import ray.data  # noqa: PLC0415  (reads the environment, and --help should not wait for it)

    from pipelines import cluster_access  # noqa: PLC0415
    from pipelines.cluster import LOCAL_CPUS, usable_cores  # noqa: PLC0415

    if ray.is_initialized():
        yield
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if os.environ.get("RAY_ADDRESS"):
            joined = ray.init(**quiet)
        else:
            joined = None
            cluster_access.give_own_token()
            cpus = cpus or max(LOCAL_CPUS, usable_cores())
            # Ray's services listen on every interface all the same; the token keeps others out.
            local = {"_node_ip_address": "127.0.0.1", "include_dashboard": False}
            # "local", or Ray would look for a cluster of somebody else on this machine.
            ray.init(address="local", num_cpus=cpus, **local, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"could not reach or start Ray: {error}") from error
    # Ray has put its own handler in place, which would print a stack and abort on SIGTERM.
    _handle_signals(_stop)
    for noisy in ("ray.data", "ray.train"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        if joined is not None:
            cluster_access.require_token(joined.dashboard_url)
            warning = cluster_access.readable_token_file()
            if warning:
                say(f"warning: {warning}")
        yield
    finally:
        ray.shutdown()


def _handle_signals(handler: Callable[[int, FrameType | None], NoReturn] | signal.Handlers) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    _handle_signals(signal.SIG_IGN)  # a second signal must not cut the clean-up
    _received.append(number)
    raise KeyboardInterrupt  # the one exception that gets through where Ray waits in its C++ core


def _exit_code(error: FCNError) -> int:
    if isinstance(error, NotPublishedError):
        return EXIT_NOT_PUBLISHED
    if isinstance(error, IncompleteError):
        return EXIT_INCOMPLETE
    return EXIT_INFRASTRUCTURE if isinstance(error, StoreError | ClusterError) else EXIT_BAD_INPUT


def _end(code: int, text: str) -> NoReturn:
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)
    sys.exit(code)
