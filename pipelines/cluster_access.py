"""Who may use a Ray cluster: a head that runs anybody's code is refused.

Whoever reaches a head's control service, or its job server, may run code there with all rights of
the cluster, unless it asks for a token. Measured on Ray 2.60: the control service and the raylets
listen on every interface, also with ``--node-ip-address=127.0.0.1``, which Ray replaces by the
machine's outward address; only the dashboard keeps to the host that it is given. So the question is
put to the head itself, without a token, as a stranger would.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import stat
import urllib.error
import urllib.request
from collections.abc import MutableMapping
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import ray
import ray.util

from pipelines.errors import ClusterError

ALLOW_OPEN = "FCN_ALLOW_OPEN_CLUSTER"
"""An environment variable; 1 admits open heads, say on a network that nobody else is on."""

ANSWER_SECONDS = 5.0

_QUESTION = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""A call of the control service that needs a token like any other; an empty request is valid."""


def require_token(dashboard: str | None = None) -> str:
    """Raise ClusterError if the joined cluster's head takes orders without a token.

    ``dashboard`` is its job server's address as ``ray.init()`` returns it (``dashboard_url``).
    Returns what was found, in one sentence. Ray must have been started.
    """
    control = ray.get_runtime_context().gcs_address
    here = ray.util.get_node_ip_address()
    return judge(control, askable(dashboard or "", control, here))


def judge(control: str, jobs: str | None) -> str:
    """As `require_token`, for a control service ``host:port`` and a job server, if there is one."""
    asked = [control, *([jobs] if jobs else [])]
    if all(_on_loopback(address) for address in asked):
        return f"the head at {control} is on loopback"
    answers = {f"the control service at {control}": _control_is_open(control)}
    if jobs:
        answers[f"the job server at http://{jobs}/api/jobs/"] = _jobs_are_open(jobs)
    opened = [name for name, is_open in answers.items() if is_open]
    if not opened:
        asks = "asks for a token" if False in answers.values() else "could not be asked for a token"
        return f"the head at {control} {asks}"
    found = f"{' and '.join(opened)} answered without a token"
    if os.environ.get(ALLOW_OPEN) == "1":
        return f"{found}, which {ALLOW_OPEN}=1 allows"
    raise ClusterError(
        f"{found}, so whoever reaches it can run code on this cluster and read its data. Stop the "
        "head, make a token (ray get-auth-token --generate), give it to every node and client, and "
        "start all of them with RAY_AUTH_MODE=token; docs/security.md has the commands. "
        f"{ALLOW_OPEN}=1 uses the cluster as it is"
    )


def readable_token_file() -> str | None:
    """A warning if the file that holds the cluster's token can be read by other users, or None.

    Ray makes the file with the process's umask, which on most systems lets everybody read it.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return None
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None
    if not mode & (stat.S_IRGRP | stat.S_IROTH):
        return None
    return f"other users can read Ray's token in {path} (mode {mode:04o}); chmod 600 {path}"


def give_own_token(environment: MutableMapping[str, str] = os.environ) -> None:
    """Give the cluster that this process is about to start a token that no file holds.

    Ray would write one into the home folder, readable by everybody. What the user has set stays.
    The cluster's processes inherit the token; those of other users cannot see it. That tokens are
    used is left to Ray, whose default it is for such a cluster.
    """
    chosen = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE")
    if not any(environment.get(name) for name in chosen):
        environment["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def askable(dashboard: str, control: str, here: str) -> str | None:
    """The job server as ``host:port``, unless it is one that only the head's own machine reaches.

    On another machine its loopback address is a stranger's, or nobody's.
    """
    address = dashboard.removeprefix("http://").rstrip("/")
    if not address or (_on_loopback(address) and _host(control) != here):
        return None
    return address


def _host(address: str) -> str:
    return address.rpartition(":")[0].strip("[]")


def _on_loopback(address: str) -> bool:
    host = _host(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _control_is_open(address: str) -> bool | None:
    """Whether the control service answers a call without a token; None if it cannot be asked.

    With RAY_USE_TLS it cannot: it speaks only to those who have a certificate of the cluster's.
    """
    with grpc.insecure_channel(address) as channel:
        try:
            channel.unary_unary(_QUESTION)(b"", timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            refusals = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
            return False if error.code() in refusals else None
    return True


def _jobs_are_open(address: str) -> bool | None:
    """Whether the job server lists jobs without a token; None if it does not answer."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}/api/jobs/", timeout=ANSWER_SECONDS) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False if error.code in {401, 403} else None
    except OSError:
        return None
