"""Objects in S3: list, look at, and write or delete on a condition.

Only requests whose behaviour is the same on every store are used: no copy, no move, no multipart
upload. A call has three outcomes, done, not done and unknown; unknown is read back. Every try of an
operation is harmless to repeat, and reads back within itself.
"""

from __future__ import annotations

import base64
import hashlib
import io
import uuid
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import ClientError

from pipelines.errors import StoreError
from pipelines.storage.deadline import Deadline
from pipelines.storage.retry import persist
from pipelines.storage.s3_client import client, code_of, status_of
from pipelines.storage.s3_read import BodyCheck, read_once
from pipelines.storage.uris import ObjectRef, bucket_and_key, object_key

PAGE = 1000
"""Objects per listing request; S3 gives no more."""

_ATTEMPT = "fcn-attempt"


def list_keys(root: str) -> Iterator[tuple[ObjectRef, float]]:
    """All objects below ``root``, in the store's order, with their ages in seconds.

    An age is the time from LastModified to the Date of the answer that lists it: the clock here
    has no part in it. Each page is an operation with its own deadline.
    """
    bucket, key = bucket_and_key(root)
    prefix = f"{key}/" if key else ""
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": PAGE}
    more = True
    while more:
        page = persist(lambda _: client().list_objects_v2(**request), "list", root)
        now = _date(page, root)
        for entry in page.get("Contents", ()):
            name = entry["Key"].removeprefix(prefix)
            # A key that ends in a slash is the folder marker that some tools leave.
            if name and not name.endswith("/"):
                ref = ObjectRef(
                    f"s3://{bucket}/{entry['Key']}", entry["ETag"].strip('"'), entry["Size"]
                )
                yield ref, max(0.0, now - entry["LastModified"].timestamp())
        more = page.get("IsTruncated", False)
        if more:
            request["ContinuationToken"] = page["NextContinuationToken"]


def stat(uri: str) -> ObjectRef | None:
    """The object as it is now, or None if there is none."""
    head = persist(lambda _: _head(uri), "look at", uri)
    return None if head is None else ObjectRef(uri, head["ETag"].strip('"'), head["ContentLength"])


def create(uri: str, data: bytes) -> bool:
    """Put a new object, whole or not at all; False if one was there before.

    If the answer to a put that worked is lost, the repeated put is refused; the attempt id in the
    object's metadata then tells that it is ours.
    """
    attempt = uuid.uuid4().hex

    def put(deadline: Deadline) -> bool:
        try:
            _put(uri, data, deadline, IfNoneMatch="*", Metadata={_ATTEMPT: attempt})
        except ClientError as error:
            if status_of(error) != 412:
                raise
            head = _head(uri)
            if head is None:
                raise OSError("it was there and then was deleted") from error
            return bool(head["Metadata"].get(_ATTEMPT) == attempt)
        return True

    return persist(put, "create", uri, len(data))


def replace(uri: str, data: bytes) -> None:
    """Put an object over whatever stands there."""
    persist(lambda deadline: _put(uri, data, deadline), "write", uri, len(data))


def swap(uri: str, data: bytes, etag: str | None) -> bool:
    """Put an object over version ``etag``, or a new one if that is None; False if it is another.

    If the answer to a put that worked is lost, the repeated put is refused; then the content tells.
    """
    if etag is None:
        return create(uri, data)
    check = BodyCheck()

    def put(deadline: Deadline) -> bool:
        try:
            _put(uri, data, deadline, IfMatch=f'"{etag}"')
        except ClientError as error:
            if status_of(error) == 412:
                return _holds(uri, data, deadline, check)
            if code_of(error) == "NoSuchKey":
                return False
            raise
        return True

    return persist(put, "swap", uri, len(data))


def delete(ref: ObjectRef) -> bool:
    """Delete that version; True if it is gone afterwards, False if another stands there."""
    bucket, key = object_key(ref.uri)

    def remove(_: Deadline) -> bool:
        try:
            client().delete_object(Bucket=bucket, Key=key, IfMatch=f'"{ref.etag}"')
        except ClientError as error:
            missing = status_of(error) == 404 and code_of(error) != "NoSuchBucket"
            if status_of(error) != 412 and not missing:
                raise
            head = _head(ref.uri)
            if head is not None and head["ETag"].strip('"') == ref.etag:
                raise OSError("it is that version, but was refused as another") from error
            return head is None
        return True

    return persist(remove, "delete", ref.uri)


class _Upload(io.BytesIO):
    """A body of which the client, which sends it block by block, gets none after the deadline."""

    def __init__(self, data: bytes, deadline: Deadline) -> None:
        super().__init__(data)
        self._deadline = deadline

    def read(self, size: int | None = -1) -> bytes:
        self._deadline.check(f"{self.tell()} bytes were sent")
        return super().read(size)


def _put(uri: str, data: bytes, deadline: Deadline, **conditions: Any) -> None:
    bucket, key = object_key(uri)
    checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
    body = _Upload(data, deadline)
    client().put_object(Bucket=bucket, Key=key, Body=body, ChecksumSHA256=checksum, **conditions)


def _head(uri: str) -> dict[str, Any] | None:
    bucket, key = object_key(uri)
    try:
        return client().head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if status_of(error) == 404:
            return None
        raise


def _holds(uri: str, data: bytes, deadline: Deadline, check: BodyCheck) -> bool:
    try:
        return read_once(uri, deadline, check) == data
    except ClientError as error:
        if code_of(error) == "NoSuchKey":
            return False
        raise


def _date(answer: dict[str, Any], root: str) -> float:
    """The store's time in seconds since 1970, from the Date of its answer."""
    said = answer["ResponseMetadata"]["HTTPHeaders"].get("date", "")
    try:
        return parsedate_to_datetime(said).timestamp()
    except ValueError as error:
        raise StoreError(f"cannot list {root}: the answer's Date is {said!r}, no time") from error
