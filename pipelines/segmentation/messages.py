"""What the process that does units alone and its children say to each other: JSON and raw bytes.

No pickle, and no Arrow either: what comes back was written by a process that may be breaking down,
and must not take its reader along.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, fields
from typing import Any, BinaryIO

from fcn_model.classes import ClassList
from pipelines.masks.generation import Generation
from pipelines.segmentation.stages import Job
from pipelines.segmentation.unit_row import Item

Message = tuple[dict[str, Any], bytes]
"""A JSON object and the bytes that belong to it."""

_FRAME = struct.Struct(">4sIQ")  # mark, bytes of the JSON text, bytes of the body
_MARK = b"fcn1"


def pack(head: dict[str, Any], body: bytes = b"") -> bytes:
    """A message as bytes."""
    text = json.dumps(head).encode()
    return b"".join((_FRAME.pack(_MARK, len(text), len(body)), text, body))


def unpack(received: bytearray) -> Message | None:
    """Take the first message out of ``received``, or nothing if it is not all there yet.

    Raises ValueError for anything that is no message.
    """
    if len(received) < _FRAME.size:
        return None
    mark, text_size, body_size = _FRAME.unpack_from(received)
    if mark != _MARK:
        raise ValueError(f"a message starts with {_MARK!r}, got {bytes(received[:4])!r}")
    start = _FRAME.size + text_size
    if len(received) < start + body_size:
        return None
    head = json.loads(received[_FRAME.size : start])
    body = bytes(memoryview(received)[start : start + body_size])
    del received[: start + body_size]
    return head, body


def read(file: BinaryIO) -> Message | None:
    """Wait for the next message; None at the end, also at one within a message."""
    received = bytearray(file.read(_FRAME.size))
    if len(received) < _FRAME.size:
        return None
    _, text_size, body_size = _FRAME.unpack(received)
    received += file.read(text_size + body_size)
    return unpack(received)


def item_out(item: Item) -> Message:
    """A record as a message; `item_in` reads it back."""
    pieces = (item.data, *item.planes)
    head = {
        field.name: getattr(item, field.name)
        for field in fields(item)
        if field.name not in {"data", "planes"}
    }
    return head | {"sizes": [len(piece) for piece in pieces]}, b"".join(pieces)


def item_in(message: Message) -> Item:
    """The record of a message; its data and planes are views into the body."""
    head, body = message
    rest = memoryview(body)
    pieces = []
    for size in head.pop("sizes"):
        pieces.append(rest[:size])
        rest = rest[size:]
    return Item(**head, data=pieces[0], planes=tuple(pieces[1:]))


def job_out(job: Job) -> dict[str, Any]:
    """A job as a JSON object; `job_in` reads it back."""
    return asdict(job) | {"classes": job.classes.to_dict()}


def job_in(value: dict[str, Any]) -> Job:
    """The job of a JSON object."""
    nested = {
        "generation": Generation(**value["generation"]),
        "classes": ClassList.from_dict(value["classes"]),
        "planes": tuple(value["planes"]),
    }
    return Job(**value | nested)
