"""Rows 32 and 33 of the failure matrix: what is missing is said before any work is done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.errors import InputError, NotFoundError, StoreError
from pipelines.storage.probe import probe
from tests.support.proxy import Fault, FaultProxy
from tests.support.seaweed import Seaweed


@pytest.fixture
def proxy(s3: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


def everything(output: str) -> list[object]:
    return list(storage.list_with_ages(output, hidden=True))


@pytest.mark.s3
def test_a_good_store_passes_and_keeps_nothing(s3: Seaweed, proxy: FaultProxy) -> None:
    output = s3.uri("out")
    probe(output)
    assert proxy.requests.count("PUT") == 4  # two to create, two to swap
    assert everything(output) == []


def test_a_good_folder_passes_and_none_is_left_that_was_not_there(tmp_path: Path) -> None:
    probe(storage.parse_uri(str(tmp_path / "a" / "b")))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").touch()
    probe(storage.parse_uri(str(tmp_path / "a")))
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]


@pytest.mark.s3
@pytest.mark.parametrize(
    ("faults", "text"),
    [
        ([("PUT", "strip"), ("PUT", "strip")], "does not honour If-None-Match"),
        ([("PUT", "pass")] * 3 + [("PUT", "strip")], "does not honour If-Match"),
    ],
)
def test_a_store_without_conditional_writes_is_refused(
    s3: Seaweed, proxy: FaultProxy, faults: list[tuple[str, Fault]], text: str
) -> None:
    proxy.faults = faults
    output = s3.uri("out")
    with pytest.raises(StoreError, match=f"_fcn/probe/.* {text}") as caught:
        probe(output)
    assert not caught.value.transient
    assert proxy.injected["strip"] > 0
    assert everything(output) == []


@pytest.mark.s3
@pytest.mark.parametrize(
    ("key", "secret"), [("testreader", "testreader-secret"), ("testwriter", "wrong")]
)
def test_who_may_not_write_is_told_so(
    s3: Seaweed, monkeypatch: pytest.MonkeyPatch, key: str, secret: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    with pytest.raises(StoreError, match=r"cannot create .*: access denied .* check AWS_"):
        probe(s3.uri("out"))


@pytest.mark.s3
def test_a_missing_bucket_is_named(s3: Seaweed) -> None:
    with pytest.raises(NotFoundError, match="bucket 'no-such-bucket' does not exist"):
        probe("s3://no-such-bucket/out")


@pytest.mark.s3
@pytest.mark.parametrize("fault", ["stall", "503"])
def test_a_store_that_does_not_work_is_given_up_after_less_than_ten_seconds(
    s3: Seaweed, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr("pipelines.storage.probe.SECONDS", 1.0)  # of 7; the rest is the same
    proxy.faults = [(method, fault) for method in ("PUT", "HEAD") for _ in range(500)]
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"cannot create .* tried \d+ times") as caught:
        probe(s3.uri("out"))
    assert time.monotonic() - started < 10 - (7 - 1)
    assert caught.value.transient


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"file")
    with pytest.raises(InputError, match=r"cannot create .*out/_fcn/probe/.*: Not a directory"):
        probe(storage.parse_uri(str(tmp_path / "out")))
    assert (tmp_path / "out").read_bytes() == b"file"
