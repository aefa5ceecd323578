"""Addresses, credentials and rights of a network store, on a real server."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from pipelines import storage
from pipelines.errors import NotFoundError, StoreError
from tests.support.seaweed import Seaweed

pytestmark = pytest.mark.s3

CALLS: list[Callable[[str], object]] = [
    storage.stat,
    storage.read_bytes,
    lambda uri: storage.create(uri, b"x"),
    lambda uri: storage.replace(uri, b"x"),
    lambda uri: storage.swap(uri, b"x", "0" * 32),
    lambda uri: storage.delete(storage.ObjectRef(uri, "0" * 32, 1)),
    lambda uri: list(storage.list_objects(uri)),
]


@pytest.mark.parametrize("call", CALLS[1:])
def test_a_missing_bucket_is_named(s3: Seaweed, call: Callable[[str], object]) -> None:
    with pytest.raises(NotFoundError, match="bucket 'no-such-bucket' does not exist at http://127"):
        call("s3://no-such-bucket/key")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("name", "value"), [("AWS_SECRET_ACCESS_KEY", "wrong"), ("AWS_ACCESS_KEY_ID", "nobody")]
)
def test_wrong_credentials_give_one_line_without_the_secret(
    s3: Seaweed,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[str], object],
    name: str,
    value: str,
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match=r"access denied .* check AWS_ACCESS_KEY_ID") as caught:
        call(s3.uri("denied"))
    assert not caught.value.transient
    assert "testwriter-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_that_may_only_read_cannot_create(
    s3: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = s3.uri("readonly")
    storage.create(uri, b"x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testreader")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testreader-secret")
    assert storage.read_bytes(uri) == b"x"
    with pytest.raises(StoreError, match="access denied"):
        storage.create(s3.uri("readonly"), b"x")


def test_missing_credentials_are_named(s3: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match="Unable to locate credentials"):
        storage.stat(s3.uri("x"))


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("http://127.0.0.1:9", "Connection refused"),
        ("http://no-such-host.invalid", "not known"),
        ("127.0.0.1:9", "Invalid endpoint"),
    ],
)
def test_an_unreachable_endpoint_is_named_within_seconds(
    s3: Seaweed, monkeypatch: pytest.MonkeyPatch, endpoint: str, reason: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    started = time.monotonic()
    with pytest.raises(StoreError, match=f"{endpoint}.*{reason}|{reason}.*{endpoint}"):
        storage.create(s3.uri("x"), b"")
    assert time.monotonic() - started < 6
