"""A loopback proxy before the S3 server that does what networks do: lose, cut, flip, refuse."""

from __future__ import annotations

import socket
import socketserver
import threading
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["lost", "cut", "flip", "503"]

_BUSY_BODY = b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(_BUSY_BODY), _BUSY_BODY)
)


class FaultProxy:
    """Forwards one request per connection to ``endpoint``; use it as a context manager.

    ``faults`` holds (method, fault) pairs; the first pair for a request's method is used up by it.
    ``lost``: the request is carried out, the answer never comes. ``cut``: half of the answer's body
    comes. ``flip``: one bit of the body is wrong. ``503``: refused without being carried out.
    """

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._upstream = (parts.hostname, parts.port)
        self.faults: list[tuple[str, Fault]] = []
        self.requests: list[str] = []
        self.body_bytes = 0
        self._lock = threading.Lock()
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                proxy._handle(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, client: socket.socket) -> None:
        request = _read_request(client)
        if request is None:
            return  # somebody only looked whether the port is open
        method = request.split(b" ", 1)[0].decode()
        with self._lock:
            self.requests.append(method)
            fault = next((pair for pair in self.faults if pair[0] == method), None)
            if fault is not None:
                self.faults.remove(fault)
        kind = fault[1] if fault else None
        answer = _BUSY if kind == "503" else self._forward(request)
        head, _, body = answer.partition(b"\r\n\r\n")
        if kind == "lost":
            return
        if kind == "cut":
            body = body[: len(body) // 2]
        if kind == "flip":
            body = body[:-1] + bytes([body[-1] ^ 1])
        with self._lock:
            self.body_bytes += len(body)
        client.sendall(head + b"\r\n\r\n" + body)

    def _forward(self, request: bytes) -> bytes:
        head, _, body = request.partition(b"\r\n\r\n")
        lines = [
            line
            for line in head.split(b"\r\n")
            if not line.lower().startswith((b"connection:", b"expect:"))
        ]
        with socket.create_connection(self._upstream, timeout=20) as server:
            server.sendall(b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body)
            return b"".join(iter(lambda: server.recv(1 << 16), b""))


def _read_request(client: socket.socket) -> bytes | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = client.recv(1 << 16)
        if not more:
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    if b"expect" in headers:
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    while len(body) < int(headers.get(b"content-length", b"0")):
        body += client.recv(1 << 16)
    return head + b"\r\n\r\n" + body
