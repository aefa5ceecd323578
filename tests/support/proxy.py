"""A loopback proxy before the S3 server that does what networks do: lose, cut, flip, refuse."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Literal
from urllib.parse import urlsplit

from tests.support import wire

Fault = Literal[
    "500",
    "503",
    "cut",
    "flip",
    "hold",
    "lost",
    "pass",
    "reset",
    "reset_body",
    "short206",
    "stall",
    "stall_body",
    "strip",
    "trickle",
]

QUICK: tuple[Fault, ...] = ("500", "503", "cut", "flip", "lost", "reset", "reset_body", "short206")
"""Those after which a client can try again at once."""

_BODY_FAULTS = {"cut", "flip", "reset_body", "short206", "stall_body"}


class FaultProxy:
    """Forwards one request per connection to ``endpoint``; use it as a context manager.

    ``faults`` holds (method, fault) pairs; the first pair for a request's method is used up by it.
    With a ``seed``, every other request suffers one of ``kinds`` with probability ``rate``; what
    it does not fit, such as a cut of a body that is empty, is not done. ``injected`` counts.

    Not carried out: ``500`` and ``503`` refuse, ``reset`` breaks the connection, ``stall`` never
    answers. Carried out: ``lost`` loses the answer; ``trickle`` sends it in drops. Of the answer's
    body, ``cut`` and ``reset_body`` send half and end the connection in order or by RST,
    ``stall_body`` sends half and waits, ``flip`` damages a bit, ``short206`` answers with half
    the range. ``strip`` takes If-None-Match and If-Match away, as a store does that does not know
    them. ``hold`` carries the request out only after `release`, whether or not the client still
    waits. ``pass`` does nothing, where only a later request of the same kind is to suffer.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        seed: int | None = None,
        rate: float = 0.12,
        kinds: Sequence[Fault] = QUICK,
        port: int = 0,
    ) -> None:
        parts = urlsplit(endpoint)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._dice = Random(seed or 0)
        self._rate = 0.0 if seed is None else rate
        self._kinds = kinds
        self.faults: list[tuple[str, Fault]] = []
        self.requests: list[str] = []  # their methods
        self.listings = 0  # those of them, by GET, that list a bucket
        self.fetched: Counter[str] = Counter()  # how often each path was asked for by GET
        self.injected: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()  # bytes of the bodies that each path was answered with
        self.drops = (64, 0.05)  # of an answer that trickles: bytes, and seconds before each
        self.sip_pause = 0.0  # seconds before each 64 KiB of a request's body is taken
        self.held = threading.Semaphore(0)  # up by one with every request that is held
        self.late: list[int] = []  # the statuses of the answers to held requests
        self._released = threading.Event()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):  # the client went away
                    proxy._handle(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            allow_reuse_address = True
            request_queue_size = 64

        self._server = Server(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_address[1]
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def release(self) -> None:
        """Carry out what is held; `late` grows when the server has answered."""
        self._released.set()

    def _handle(self, client: socket.socket) -> None:
        request = wire.read_request(client, self.sip_pause)
        if request is None:
            return
        kind = self._draw(request)
        if kind in wire.REFUSALS:
            client.sendall(wire.REFUSALS[kind])
        elif kind == "reset":
            wire.reset(client)
        elif kind == "stall":
            self._wait_for_the_end_of(client)
        elif kind == "hold":
            self._hold(client, request)
        elif kind == "strip":
            answer = wire.forward(self._upstream, wire.without_conditions(request))
            self._send(client, request, answer)
        else:
            self._answer(client, request, kind)

    def _draw(self, request: bytes) -> str:
        method = request.split(b" ", 1)[0].decode("latin-1")
        head = request.split(wire.END, 1)[0].lower()
        with self._lock:
            self.requests.append(method)
            self.listings += b"list-type=" in request.split(b"\r\n", 1)[0]
            self.fetched[_path(request)] += method == "GET"
            fault = next((pair for pair in self.faults if pair[0] == method), None)
            kind = ""
            if fault is not None:
                self.faults.remove(fault)
                kind = fault[1]
            elif self._dice.random() < self._rate:
                kind = self._dice.choice(self._kinds)
                if kind == "flip" and b"\r\nrange:" in head:
                    kind = ""  # a part of an object has no checksum
            if kind not in {"", "pass", *_BODY_FAULTS}:
                self.injected[kind] += 1
        return kind

    def _answer(self, client: socket.socket, request: bytes, kind: str) -> None:
        answer = wire.forward(self._upstream, request)
        if kind in _BODY_FAULTS and not wire.is_object_read(request, answer):
            kind = ""
        with self._lock:
            if kind in _BODY_FAULTS:
                self.injected[kind] += 1
            if kind == "flip":
                answer = wire.flipped(answer, self._dice)
        if kind == "lost":
            return
        if kind == "short206":
            answer = wire.shortened(answer)
        if kind in {"cut", "reset_body", "stall_body"}:
            answer = wire.halved(answer)
        self._send(client, request, answer, slow=kind == "trickle")
        if kind == "reset_body":
            wire.reset(client)
        if kind == "stall_body":
            self._wait_for_the_end_of(client)

    def _send(
        self, client: socket.socket, request: bytes, answer: bytes, *, slow: bool = False
    ) -> None:
        with self._lock:
            self.sent[_path(request)] += len(answer) - answer.index(wire.END) - len(wire.END)
        size, pause = self.drops if slow else (len(answer), 0.0)
        for start in range(0, len(answer), size):
            if slow and self._ended.wait(pause):
                return
            client.sendall(answer[start : start + size])

    def _hold(self, client: socket.socket, request: bytes) -> None:
        self.held.release()
        self._released.wait()
        if not self._ended.is_set():
            answer = wire.forward(self._upstream, request)
            with self._lock:
                self.late.append(int(answer[9:12]))
            self._send(client, request, answer)

    def _wait_for_the_end_of(self, client: socket.socket) -> None:
        client.settimeout(0.05)
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                if not client.recv(1):
                    return


def _path(request: bytes) -> str:
    return request.split(b" ", 2)[1].decode("latin-1").split("?")[0]
