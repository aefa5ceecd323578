"""URIs of objects: which forms are allowed, and how they are taken apart and joined.

Canonical forms are ``s3://bucket``, ``s3://bucket/key`` and ``file:///absolute/path``, without a
trailing slash. Nothing is percent-decoded: ``file:///a b`` is the path ``/a b``. A query is refused
because ``s3://bucket/key?endpoint_override=host`` would send signed requests to a stranger;
credentials and endpoint come from the environment only.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from pipelines.errors import InputError

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}\Z")
_ALLOWED = "allowed are s3://bucket/key, file:///absolute/path and plain paths"


@dataclass(frozen=True, order=True, slots=True)
class ObjectRef:
    """One version of one object: its canonical URI, its ETag without quotes, its size in bytes.

    The ETag of a local file is its size and modification time in nanoseconds, both hexadecimal.
    """

    uri: str
    etag: str
    size: int


def parse_uri(text: str) -> str:
    """The canonical URI of what a user wrote.

    A plain path may be relative, start with ``~`` and contain ``..``; a URI may not. Raises
    InputError, which names the text and what is allowed, for every other form.
    """
    if not text.strip():
        raise InputError(f"a URI or path is needed, got {text!r}; {_ALLOWED}")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in text):
        raise _refused(text, "control characters are not allowed")
    if "?" in text:
        raise _refused(
            text, "a query is not allowed; endpoint and region come from AWS_* variables"
        )
    scheme, separator, rest = text.partition("://")
    if not separator:
        return _from_plain_path(text)
    if scheme == "s3":
        return _from_s3(text, rest)
    if scheme == "file":
        return _from_file(text, rest)
    raise _refused(text, f"the scheme {scheme!r} is not supported")


def is_s3(uri: str) -> bool:
    """Whether a canonical URI lies in an object store."""
    return uri.startswith("s3://")


def local_path(uri: str) -> Path:
    """The path of a canonical ``file://`` URI. Raises InputError for an S3 URI."""
    if not uri.startswith("file:///"):
        raise InputError(f"{uri!r} is not a local file; wanted file:///absolute/path")
    return Path(uri.removeprefix("file://"))


def file_uri(path: Path) -> str:
    """The canonical URI of an absolute local path."""
    return f"file://{path.as_posix()}"


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Bucket and key of a canonical S3 URI; the key of a whole bucket is empty."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def object_key(uri: str) -> tuple[str, str]:
    """Bucket and key of an S3 object's URI. Raises InputError if it names a whole bucket."""
    bucket, key = bucket_and_key(uri)
    if not key:
        raise InputError(f"{uri} is a bucket, an object is wanted: s3://{bucket}/key")
    return bucket, key


def join(uri: str, *parts: str) -> str:
    """The URI of a name below ``uri``. Each part is a relative key such as ``a/b.png``."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def relative(uri: str, root: str) -> str:
    """The key of ``uri`` below ``root``, such that ``join(root, key) == uri``."""
    prefix = root.rstrip("/") + "/"
    if not uri.startswith(prefix):
        raise InputError(f"{uri} does not lie below {root}")
    return uri.removeprefix(prefix)


def _refused(text: str, why: str) -> InputError:
    """The error that shows the text, but neither a password nor a query, which may be signed."""
    shown = re.sub(r"^([^/]*://)[^/]*@", r"\1***@", text)
    shown = re.sub(r"\?.*", "?***", shown, flags=re.DOTALL)
    return InputError(f"cannot use {shown!r} as a URI: {why}; {_ALLOWED}")


def _from_plain_path(text: str) -> str:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text):
        raise _refused(text, "it looks like a URI without //")
    # abspath, not resolve: a link stays the name that the user gave.
    return file_uri(Path(os.path.abspath(Path(text).expanduser())))  # noqa: PTH100


def _from_s3(text: str, rest: str) -> str:
    bucket, _, key = rest.removesuffix("/").partition("/")
    if "@" in bucket:
        raise _refused(text, "credentials come from AWS_* variables, never from a URI")
    if not _BUCKET.match(bucket):
        raise _refused(text, f"{bucket!r} is not a bucket name")
    if key:
        _check_parts(text, key)
    return f"s3://{bucket}/{key}" if key else f"s3://{bucket}"


def _from_file(text: str, rest: str) -> str:
    if not rest.startswith("/"):
        raise _refused(text, "a file URI needs three slashes and no host")
    path = rest.removesuffix("/") or "/"
    if path != "/":
        _check_parts(text, path[1:])
    return f"file://{path}"


def _check_parts(text: str, key: str) -> None:
    parts = key.split("/")
    if "" in parts:
        raise _refused(text, "empty path parts (//) are not allowed; some stores drop them")
    if "." in parts or ".." in parts:
        raise _refused(text, "path parts . and .. are not allowed")
