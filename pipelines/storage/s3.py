"""Objects in S3: list, get with a pinned version, create-only put.

Only requests whose behaviour is the same on every store are used: no copy, no move, no multipart
upload. A call has three outcomes, done, not done and unknown; unknown is read back.
"""

from __future__ import annotations

import base64
import hashlib
import random
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from fcn_model.errors import FCNError
from pipelines.errors import InputError
from pipelines.storage.s3_client import clear_error, client, is_transient, status_of
from pipelines.storage.uris import ObjectRef, bucket_and_key

TRIES = 8
DEADLINE_SECONDS = 120.0
"""No further try of an operation is started later than this after the first."""

_ATTEMPT = "fcn-attempt"
_T = TypeVar("_T")


def list_keys(root: str) -> list[ObjectRef]:
    """All objects below ``root``, in the store's order."""
    bucket, key = bucket_and_key(root)
    prefix = f"{key}/" if key else ""
    pages = client().get_paginator("list_objects_v2")

    def collect() -> list[ObjectRef]:
        found = []
        for page in pages.paginate(Bucket=bucket, Prefix=prefix):
            for entry in page.get("Contents", ()):
                name = entry["Key"].removeprefix(prefix)
                # A key that ends in a slash is the folder marker that some tools leave.
                if name and not name.endswith("/"):
                    etag = entry["ETag"].strip('"')
                    found.append(ObjectRef(f"s3://{bucket}/{entry['Key']}", etag, entry["Size"]))
        return found

    return _persist(collect, "list", root)


def stat(uri: str) -> ObjectRef | None:
    """The object as it is now, or None if there is none."""
    head = _head(uri)
    if head is None:
        return None
    return ObjectRef(uri, head["ETag"].strip('"'), head["ContentLength"])


def read(uri: str, etag: str | None, span: tuple[int, int] | None = None) -> bytes:
    """The whole object, or its bytes first .. last of ``span``, of version ``etag``.

    The client does not retry a body that breaks off, so this does. Raises ChangedError if the
    object is another version, StoreError if the bytes do not arrive within the deadline.
    """
    bucket, key = _object(uri)
    request: dict[str, Any] = {"Bucket": bucket, "Key": key}
    if etag is not None:
        request["IfMatch"] = f'"{etag}"'
    if span is not None:
        request["Range"] = f"bytes={span[0]}-{span[1]}"

    def get() -> bytes:
        answer = client().get_object(**request)
        # As a context manager the body would hand out the raw stream, without its checksum.
        with closing(answer["Body"]) as body:
            data: bytes = body.read()
        wanted = answer["ContentLength"] if span is None else span[1] - span[0] + 1
        if len(data) != wanted:
            raise OSError(f"{len(data)} of {wanted} bytes arrived")
        return data

    return _persist(get, "read", uri)


def create(uri: str, data: bytes) -> bool:
    """Put a new object, whole or not at all; False if one was there before.

    If the answer to a put that worked is lost, the repeated put is refused; the attempt id in the
    object's metadata then tells that it is ours.
    """
    bucket, key = _object(uri)
    attempt = uuid.uuid4().hex
    checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()

    def put() -> bool:
        try:
            client().put_object(
                Bucket=bucket,
                Key=key,
                Body=data,
                IfNoneMatch="*",
                ChecksumSHA256=checksum,
                Metadata={_ATTEMPT: attempt},
            )
        except ClientError as error:
            if status_of(error) != 412:
                raise
            head = _head(uri)
            if head is None:
                raise OSError("it was there and then was deleted") from error
            return bool(head["Metadata"].get(_ATTEMPT) == attempt)
        return True

    return _persist(put, "create", uri)


def replace(uri: str, data: bytes) -> None:
    """Put an object over whatever stands there."""
    bucket, key = _object(uri)
    checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()

    def put() -> None:
        client().put_object(Bucket=bucket, Key=key, Body=data, ChecksumSHA256=checksum)

    _persist(put, "write", uri)


def _head(uri: str) -> dict[str, Any] | None:
    bucket, key = _object(uri)

    def head() -> dict[str, Any] | None:
        try:
            answer: dict[str, Any] = client().head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if status_of(error) == 404:
                return None
            raise
        return answer

    return _persist(head, "look at", uri)


def _persist(call: Callable[[], _T], verb: str, uri: str) -> _T:
    """The result of ``call``, tried again with full-jitter pauses while the failure may pass."""
    give_up = time.monotonic() + DEADLINE_SECONDS
    for attempt in range(TRIES):
        try:
            return call()
        except FCNError:
            raise
        except (BotoCoreError, ClientError, OSError) as error:
            late = attempt == TRIES - 1 or time.monotonic() > give_up
            if late or not is_transient(error):
                raise clear_error(error, verb, uri) from error
        time.sleep(random.uniform(0, min(8.0, 0.2 * 2**attempt)))  # noqa: S311
    raise AssertionError("unreachable: the last try returns or raises")


def _object(uri: str) -> tuple[str, str]:
    bucket, key = bucket_and_key(uri)
    if not key:
        raise InputError(f"{uri} is a bucket, an object is wanted: s3://{bucket}/key")
    return bucket, key
