"""Open heads are refused, and what keeps a token a secret."""

from __future__ import annotations

import http.server
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc  # type: ignore[import-untyped]
import pytest

from pipelines import cluster_access
from pipelines.cluster_access import askable, give_own_token, judge, readable_token_file
from pipelines.errors import ClusterError


@contextmanager
def _control(status):
    """A control service that answers or refuses, and nothing else of a head."""

    def answer(request, context):
        if status is not None:
            context.abort(status, "no")
        return b""

    methods = {"CheckAlive": grpc.unary_unary_rpc_method_handler(answer)}
    handler = grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", methods)
    server = grpc.server(ThreadPoolExecutor(1), handlers=[handler])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


@contextmanager
def _jobs(status):
    """A job server of which ``/api/jobs/`` has this status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/api/jobs/" else 500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def outward(monkeypatch):
    """Servers of tests are on loopback; here they count as if they were not."""
    monkeypatch.setattr(cluster_access, "_on_loopback", lambda address: False)
    monkeypatch.delenv(cluster_access.ALLOW_OPEN, raising=False)


REFUSED = grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("control", "jobs", "found"),
    [
        (None, 401, "control service"),
        (REFUSED, 200, "job server"),
        (None, 200, "control service at .* and the job server"),
        (REFUSED, 401, None),
        (REFUSED, 403, None),
        (REFUSED, 404, None),  # another server: the control service's word is enough
    ],
)
def test_a_head_that_answers_a_stranger_is_refused(outward, monkeypatch, control, jobs, found):
    with _control(control) as service, _jobs(jobs) as server:
        if found is None:
            assert judge(service, server) == f"the head at {service} asks for a token"
            return
        with pytest.raises(ClusterError, match=found) as caught:
            judge(service, server)
        for word in ("RAY_AUTH_MODE=token", "ray get-auth-token", "docs/security.md"):
            assert word in str(caught.value)
        monkeypatch.setenv(cluster_access.ALLOW_OPEN, "1")
        assert f"{cluster_access.ALLOW_OPEN}=1 allows" in judge(service, server)


def test_a_head_that_cannot_be_asked_is_not_called_safe(outward):
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
    assert "could not be asked" in judge(address, address)


def test_a_head_on_loopback_is_not_asked():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        for name in (address, address.replace("127.0.0.1", "localhost"), "[::1]:6379"):
            assert "on loopback" in judge(name, address)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_dashboard_on_loopback_is_asked_only_on_the_heads_own_machine():
    assert askable("http://10.0.0.1:8265/", "10.0.0.1:6379", "10.0.0.9") == "10.0.0.1:8265"
    assert askable("127.0.0.1:8265", "10.0.0.1:6379", "10.0.0.1") == "127.0.0.1:8265"
    assert askable("127.0.0.1:8265", "10.0.0.1:6379", "10.0.0.9") is None
    assert askable("", "10.0.0.1:6379", "10.0.0.1") is None


@pytest.mark.ray
def test_a_real_head_with_a_token_refuses_the_question_that_an_open_one_answers(ray_session):
    import ray

    control = ray.get_runtime_context().gcs_address
    assert cluster_access._control_is_open(control) is False
    assert cluster_access.require_token() in {
        f"the head at {control} asks for a token",
        f"the head at {control} is on loopback",  # of a machine without a network
    }


@pytest.mark.parametrize(("mode", "warned"), [(0o644, True), (0o640, True), (0o600, False)])
@pytest.mark.parametrize("named", [True, False])
def test_a_token_that_others_can_read_is_pointed_out(tmp_path, monkeypatch, mode, warned, named):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    assert readable_token_file() is None
    file = tmp_path / ("token" if named else ".ray/auth_token")
    file.parent.mkdir(exist_ok=True)
    file.write_text("0" * 64)
    file.chmod(mode)
    if named:
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    assert (f"chmod 600 {file}" in (readable_token_file() or "")) is warned
    assert "0000000000" not in (readable_token_file() or "")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "1" * 64)  # which counts before any file
    assert readable_token_file() is None


def test_a_cluster_of_ones_own_gets_a_token_unless_the_user_chose():
    first: dict[str, str] = {}
    second: dict[str, str] = {}
    give_own_token(first)
    give_own_token(second)
    assert list(first) == ["RAY_AUTH_TOKEN"]
    assert len(bytes.fromhex(first["RAY_AUTH_TOKEN"])) == 32
    assert first != second
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        chosen = {name: "x"}
        give_own_token(chosen)
        assert chosen == {name: "x"}
