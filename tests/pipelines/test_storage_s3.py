"""What only a network store can do wrong, on a real server behind a proxy that injects faults."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from pipelines import storage
from pipelines.errors import NotFoundError, StoreError
from tests.support.proxy import FaultProxy
from tests.support.seaweed import Seaweed

pytestmark = pytest.mark.s3

CALLS: list[Callable[[str], object]] = [
    storage.stat,
    storage.read_bytes,
    lambda uri: storage.create(uri, b"x"),
    lambda uri: storage.replace(uri, b"x"),
    lambda uri: list(storage.list_objects(uri)),
]


@pytest.fixture
def proxy(s3: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def test_a_create_whose_answer_was_lost_is_recognised_as_ours(
    s3: Seaweed, proxy: FaultProxy
) -> None:
    uri = s3.uri("lost")
    proxy.faults = [("PUT", "lost")]
    assert storage.create(uri, b"data") is True
    assert proxy.requests == ["PUT", "PUT", "HEAD"]
    assert storage.read_bytes(uri) == b"data"


def test_a_lost_refusal_is_not_taken_for_success(s3: Seaweed, proxy: FaultProxy) -> None:
    uri = s3.uri("foreign")
    storage.create(uri, b"theirs")
    proxy.faults = [("PUT", "lost"), ("HEAD", "lost")]
    assert storage.create(uri, b"ours") is False
    assert proxy.faults == []
    assert storage.read_bytes(uri) == b"theirs"


@pytest.mark.parametrize("fault", ["lost", "cut", "flip", "503"])
def test_a_read_survives_faults_with_the_right_bytes(
    s3: Seaweed, proxy: FaultProxy, fault: str
) -> None:
    uri, data = s3.uri("read"), bytes(range(256)) * 400
    storage.create(uri, data)
    proxy.faults = [("GET", fault), ("GET", fault)]  # type: ignore[list-item]
    assert storage.read_bytes(uri) == data
    assert proxy.faults == []


def test_a_ranged_read_survives_a_cut_answer(s3: Seaweed, proxy: FaultProxy) -> None:
    uri, data = s3.uri("ranged"), bytes(range(256)) * 400
    storage.create(uri, data)
    ref = storage.stat(uri)
    assert ref is not None
    proxy.faults = [("GET", "cut")]
    with storage.open_ranged(ref) as file:
        file.seek(1000)
        assert file.read(5000) == data[1000:6000]
    assert proxy.faults == []


def test_a_store_that_refuses_for_ever_ends_in_one_clear_line(
    s3: Seaweed, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.storage.s3.DEADLINE_SECONDS", 0.0)
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    proxy.faults = [("PUT", "503")] * 50
    with pytest.raises(StoreError, match="503 SlowDown") as caught:
        storage.create(s3.uri("busy"), b"")
    assert "\n" not in str(caught.value)
    assert len(proxy.faults) == 50 - 6


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
