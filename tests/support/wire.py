"""S3 requests and answers as bytes on sockets, for the fault proxy: take, forward, spoil."""

from __future__ import annotations

import socket
import struct
import time
from random import Random

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.support.seaweed import ACCESS_KEY, SECRET_KEY

END = b"\r\n\r\n"


def refusal(status: bytes, code: bytes) -> bytes:
    """An answer of a store that did not carry out the request."""
    body = b"<Error><Code>%s</Code><Message>later</Message></Error>" % code
    head = b"HTTP/1.1 %s\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n" % (
        status,
        len(body),
    )
    return head + b"Connection: close" + END + body


REFUSALS = {
    "503": refusal(b"503 Service Unavailable", b"SlowDown"),
    "500": refusal(b"500 Internal Server Error", b"InternalError"),
}


def headers_of(head: bytes) -> dict[bytes, bytes]:
    """The headers of a request or answer, names in small letters."""
    pairs = (line.split(b":", 1) for line in head.split(b"\r\n")[1:])
    return {name.lower(): value.strip() for name, value in pairs}


def read_request(client: socket.socket, pause: float = 0.0) -> bytes | None:
    """A whole request; None if the client only looked whether the port is open, or went away.

    The body is taken in pieces of at most 64 KiB, with ``pause`` seconds before each.
    """
    data = b""
    while END not in data:
        more = client.recv(1 << 16)
        if not more:
            return None
        data += more
    head, _, body = data.partition(END)
    headers = headers_of(head)
    if b"expect" in headers:
        client.sendall(b"HTTP/1.1 100 Continue" + END)
    length = int(headers.get(b"content-length", b"0"))
    gathered = bytearray(body)
    while len(gathered) < length:
        time.sleep(pause)
        more = client.recv(1 << 16)
        if not more:
            return None
        gathered += more
    return head + END + bytes(gathered)


def forward(upstream: tuple[str, int], request: bytes) -> bytes:
    """The whole answer of the server to a request, on a connection of its own."""
    head, _, body = request.partition(END)
    lines = [
        line
        for line in head.split(b"\r\n")
        if not line.lower().startswith((b"connection:", b"expect:"))
    ]
    with socket.create_connection(upstream, timeout=20) as server:
        server.sendall(b"\r\n".join([*lines, b"Connection: close"]) + END + body)
        return b"".join(iter(lambda: server.recv(1 << 16), b""))


def reset(client: socket.socket) -> None:
    """End the connection with RST instead of FIN, as a machine does that crashed."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def is_object_read(request: bytes, answer: bytes) -> bool:
    """Whether it is a successful GET of an object that has bytes."""
    line = request.split(b"\r\n", 1)[0]
    status = answer[9:12]
    has_body = len(answer) > answer.index(END) + len(END)
    return (
        line.startswith(b"GET ") and b"?list-type" not in line and status[:1] == b"2" and has_body
    )


def flipped(answer: bytes, dice: Random) -> bytes:
    """One bit of the body is wrong."""
    body = answer.index(END) + len(END)
    place = dice.randrange(body, len(answer))
    return answer[:place] + bytes([answer[place] ^ 1 << dice.randrange(8)]) + answer[place + 1 :]


def halved(answer: bytes) -> bytes:
    """The second half of the body is missing."""
    head, _, body = answer.partition(END)
    return head + END + body[: len(body) // 2]


def shortened(answer: bytes) -> bytes:
    """A valid 206 that holds the first half of the range that was asked for."""
    head, _, body = answer.partition(END)
    headers = headers_of(head)
    first, total = 0, len(body)
    if said := headers.get(b"content-range"):  # bytes 10-19/100
        first, total = int(said.split()[1].split(b"-")[0]), int(said.split(b"/")[1])
    half = body[: len(body) // 2]
    changed = (b"content-length:", b"content-range:", b"http/")
    kept = [line for line in head.split(b"\r\n") if not line.lower().startswith(changed)]
    lines = [
        b"HTTP/1.1 206 Partial Content",
        *kept,
        b"Content-Length: %d" % len(half),
        b"Content-Range: bytes %d-%d/%d" % (first, first + len(half) - 1, total),
    ]
    return b"\r\n".join(lines) + END + half


def without_conditions(request: bytes) -> bytes:
    """The request without If-None-Match and If-Match, signed anew, as if a store ignored them."""
    head, _, body = request.partition(END)
    method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
    headers = {name.decode(): value.decode() for name, value in headers_of(head).items()}
    for name in ("if-none-match", "if-match", "authorization", "x-amz-date", "expect"):
        headers.pop(name, None)
    signed = AWSRequest(method, f"http://{headers['host']}{target}", headers, body)
    S3SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", "us-east-1").add_auth(signed)
    lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in signed.headers.items())]
    return "\r\n".join(lines).encode() + END + body
