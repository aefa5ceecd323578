"""One S3 client per process, built from the standard AWS variables, and what its errors mean."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from fcn_model.errors import FCNError
from pipelines.errors import ChangedError, NotFoundError, StoreError
from pipelines.storage.uris import bucket_and_key

CONNECT_SECONDS = 3.0
"""To connect, and to hand one block of an upload to the network."""

READ_SECONDS = 15.0
"""To wait for the next packet. Some tries have to fit into an operation's deadline."""

_clients: dict[tuple[int, int], Any] = {}
_lock = threading.Lock()

_NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError)
_TRANSIENT = (BotoConnectionError, HTTPClientError, HTTPError, OSError, ResponseParserError)
_TRANSIENT_CODES = {
    "BadDigest",  # the request was damaged on the way, as in the next ones
    "IncompleteBody",
    "XAmzContentSHA256Mismatch",
    "RequestTimeout",
    "Throttling",
}
_DENIED = {
    "AccessDenied",
    "ExpiredToken",
    "Forbidden",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}


class DamageError(OSError):
    """An answer arrived whole, but is not what it says it is; the next one may be."""


def region() -> str:
    """The region to sign for; stores that are not AWS accept any."""
    env = os.environ
    return env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or "us-east-1"


def endpoint() -> str | None:
    """The endpoint that the environment names, or None for AWS itself."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None


def client() -> Any:
    """The boto3 client of this process and environment.

    It is made at the first call and never crosses a process border. Raises StoreError within a few
    seconds if nobody listens at the endpoint: a later outage is waited for, a wrong address is not.
    """
    settings = sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_"))
    known = (os.getpid(), hash(tuple(settings)))
    with _lock:
        if known not in _clients:
            _clients[known] = _connect()
        return _clients[known]


def status_of(error: ClientError) -> int:
    """The HTTP status of a refused request."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(error: ClientError) -> str:
    """The S3 error code of a refused request; a HEAD request has only its status."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed in a moment."""
    if isinstance(error, ClientError):
        status = status_of(error)
        passing = status in {408, 409, 429} or (status >= 500 and status != 501)
        return passing or code_of(error) in _TRANSIENT_CODES
    return isinstance(error, _TRANSIENT)


def clear_error(error: Exception, verb: str, uri: str, tried: str = "") -> FCNError:
    """The project's error for what the client raised: one line that says what to do.

    ``tried`` is put at its end. A StoreError is transient if the failure `is_transient`.
    """
    where = f"cannot {verb} {uri}"
    if isinstance(error, ClientError):
        return _refusal(error, where, uri, tried)
    if isinstance(error, _NO_CREDENTIALS):
        return _access_error(where, str(error))
    if isinstance(error, DamageError):
        return StoreError(f"{where}: {error}{tried}", transient=True)
    if isinstance(error, _TRANSIENT):
        text = f"{where}: the store at {_address()} does not answer ({error}){tried}"
        return StoreError(text, transient=True)
    return StoreError(f"{where}: {error}")


def _refusal(error: ClientError, where: str, uri: str, tried: str) -> FCNError:
    code, status = code_of(error), status_of(error)
    if code == "NoSuchBucket":
        bucket, _ = bucket_and_key(uri)
        return NotFoundError(f"{where}: bucket {bucket!r} does not exist at {_address()}")
    if code == "NoSuchKey" or status == 404:
        return NotFoundError(f"{where}: there is no such object at {_address()}")
    if code in _DENIED or status in {401, 403}:
        return _access_error(where, code or str(status))
    if status == 412:
        return ChangedError(f"{where}: it is not the planned version any more")
    text = error.response.get("Error", {}).get("Message", "")
    said = f"{status} {code} {text}".strip()
    return StoreError(
        f"{where}: the store at {_address()} answered {said}{tried}", transient=is_transient(error)
    )


def _access_error(where: str, why: str) -> StoreError:
    return StoreError(
        f"{where}: access denied by {_address()} ({why}); "
        "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the permissions of that key"
    )


def _address() -> str:
    return endpoint() or f"AWS S3 in {region()}"


def _connect() -> Any:
    address = endpoint()
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": 1},  # `persist` tries again, and knows when to stop
        max_pool_connections=32,
        # Servers that are not AWS seldom have a DNS name for every bucket.
        s3={"addressing_style": "path"} if address else None,
    )
    try:
        made = boto3.session.Session().client("s3", region_name=region(), config=config)
    except (BotoCoreError, ValueError) as error:
        raise StoreError(f"the AWS_* variables are wrong: {error}; check them") from error
    _check_that_somebody_listens(made.meta.endpoint_url)
    return made


def _check_that_somebody_listens(url: str) -> None:
    parts = urlsplit(url)
    proxy = os.environ.get("HTTPS_PROXY" if parts.scheme == "https" else "HTTP_PROXY")
    if proxy or parts.hostname is None:
        return  # the proxy connects for us
    port = parts.port or (443 if parts.scheme == "https" else 80)
    give_up = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            socket.create_connection((parts.hostname, port), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            if time.monotonic() > give_up:
                raise StoreError(
                    f"no object store answers at {url} ({error}); "
                    "check AWS_ENDPOINT_URL and that the server runs",
                    transient=True,
                ) from error
            time.sleep(0.5)
        else:
            return
