"""Reading an object in S3: whole or a part, of one version, with what can be compared compared.

| what arrives | how it is noticed |
|---|---|
| a body that is cut or stalls | its length; the deadline |
| another range than was asked for | Content-Range |
| another version than was asked for | If-Match, and the answer's ETag |
| wrong bytes of a whole object | the checksum or MD5 stored with it, if there is one |

A part of an object has no checksum in S3. Shards have their own, in every Parquet page; beyond
that, only https protects parts.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zlib
from collections.abc import Callable
from typing import Any

from pipelines.errors import ChangedError
from pipelines.storage.deadline import Deadline
from pipelines.storage.retry import persist
from pipelines.storage.s3_client import DamageError, client
from pipelines.storage.uris import object_key

_CHUNK = 1 << 20
_MD5 = re.compile(r"[0-9a-f]{32}\Z")

_CHECKSUMS: dict[str, Callable[[bytes], bytes]] = {
    "ChecksumCRC32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "ChecksumSHA256": lambda data: hashlib.sha256(data).digest(),
    "ChecksumSHA1": lambda data: hashlib.sha1(data, usedforsecurity=False).digest(),
}
"""Those of S3's checksums that Python can compute at speed, by their name in an answer."""


def read(uri: str, etag: str | None, span: tuple[int, int] | None = None) -> bytes:
    """The whole object, or its bytes first .. last of ``span``, of version ``etag``.

    Raises ChangedError if the object is another version, StoreError if the right bytes do not
    arrive within the deadline.
    """
    bucket, key = object_key(uri)
    request: dict[str, Any] = {"Bucket": bucket, "Key": key, "ChecksumMode": "ENABLED"}
    if etag is not None:
        request["IfMatch"] = f'"{etag}"'
    if span is not None:
        request["Range"] = f"bytes={span[0]}-{span[1]}"
    check = BodyCheck()

    def get(deadline: Deadline) -> bytes:
        answer = client().get_object(**request)
        data = _body(answer, deadline)
        found = answer["ETag"].strip('"')
        if etag not in (None, found):
            raise ChangedError(f"cannot read {uri}: version {etag} was wanted, {found} came")
        _check_range(answer, len(data), span)
        if span is None:
            check(data, answer)
        return data

    return persist(get, "read", uri, 0 if span is None else span[1] - span[0] + 1)


def read_once(uri: str, deadline: Deadline, check: BodyCheck) -> bytes:
    """The whole object as it is now, for an operation that does more and is tried as a whole.

    ``check`` is the same in all tries. Raises what the client raises.
    """
    bucket, key = object_key(uri)
    answer = client().get_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    data = _body(answer, deadline)
    check(data, answer)
    return data


def _body(answer: dict[str, Any], deadline: Deadline) -> bytes:
    """All bytes of an answer, as they come, until the deadline."""
    wanted = answer.get("ContentLength")
    deadline.allow(wanted or 0)
    gathered = io.BytesIO()  # its value is had without a copy
    # As a context manager the body hands out the raw stream. Only that one has read1, which
    # returns what is there; read would wait until the chunk is full, a byte a minute.
    with answer["Body"] as stream:
        while chunk := stream.read1(_CHUNK):
            gathered.write(chunk)
            deadline.check(f"{gathered.tell()} of {wanted} bytes arrived")
    data = gathered.getvalue()
    if wanted is not None and len(data) != wanted:
        raise OSError(f"{len(data)} of {wanted} bytes arrived")
    return data


def _check_range(answer: dict[str, Any], length: int, span: tuple[int, int] | None) -> None:
    """Raises DamageError unless the answer holds the bytes of ``span``, of all if that is None."""
    said = answer.get("ContentRange")
    if span is None:
        if said is not None and said != f"bytes 0-{length - 1}/{length}":
            raise DamageError(f"all bytes were wanted, the store answered with {said}")
        return
    wanted = f"bytes {span[0]}-{span[1]}"
    if said is None or said.split("/")[0] != wanted or length != span[1] - span[0] + 1:
        raise DamageError(f"{wanted} were wanted, the store answered with {said}, {length} bytes")


class BodyCheck:
    """Compares whole bodies of one object, in several tries, with what is stored with it."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, data: bytes, answer: dict[str, Any]) -> None:
        """Raises DamageError if the bytes are not those that were stored, as far as is known."""
        for name, compute in _CHECKSUMS.items():
            stored = answer.get(name, "")
            if stored and "-" not in stored:  # with a hyphen it is one of checksums of parts
                if compute(data) != base64.b64decode(stored):
                    raise DamageError(f"the bytes do not fit the {name} stored with them")
                return
        self._compare_md5(data, answer)

    def _compare_md5(self, data: bytes, answer: dict[str, Any]) -> None:
        """An ETag of 32 digits is mostly the MD5, but a store may choose it otherwise.

        Damage on the way differs from read to read: bytes that come twice are the stored ones.
        """
        etag = answer["ETag"].strip('"')
        if not _MD5.match(etag) or _encrypted(answer):
            return
        md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if md5 == etag or md5 in self._seen:
            return
        self._seen.add(md5)
        raise DamageError(f"the bytes have MD5 {md5}, the ETag is {etag}")


def _encrypted(answer: dict[str, Any]) -> bool:
    """Whether a key of one's own is used, with which ETags on AWS are no MD5."""
    by_service = str(answer.get("ServerSideEncryption", "")).startswith("aws:kms")
    return by_service or "SSECustomerAlgorithm" in answer
