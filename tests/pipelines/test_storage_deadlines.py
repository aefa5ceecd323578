"""No call to a store takes longer than its time, and none has an effect that nobody expects.

Rows 5 and 9 of the failure matrix, by a fault proxy before a real server. Deadlines are shortened.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipelines import storage
from pipelines.errors import StoreError
from pipelines.storage import ObjectRef, deadline, retry, s3_client
from pipelines.storage.deadline import Deadline
from tests.support.proxy import Fault, FaultProxy
from tests.support.seaweed import Seaweed

pytestmark = pytest.mark.s3

DATA = bytes(range(256)) * 400
SECONDS = 1.5
LATE = 5.0
"""An operation ends at most this many seconds after its deadline, on a busy machine too."""


@pytest.fixture
def proxy(s3: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    monkeypatch.setattr(retry, "BASE_PAUSE", 0.005)
    with FaultProxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """From its call on, deadlines are SECONDS."""

    def begin() -> None:
        monkeypatch.setattr(deadline, "SECONDS", SECONDS)
        monkeypatch.setattr(deadline, "BYTES_PER_SECOND", 1e9)
        monkeypatch.setattr(deadline, "GRACE_SECONDS", 0.2)
        monkeypatch.setattr(s3_client, "READ_SECONDS", 0.4)
        monkeypatch.setattr(s3_client, "CONNECT_SECONDS", 0.4)
        s3_client._clients.clear()
        s3_client.client()  # has these timeouts; on a busy machine it takes a second to make

    yield begin
    s3_client._clients.clear()


def stored(uri: str, data: bytes) -> ObjectRef:
    storage.create(uri, data)
    ref = storage.stat(uri)
    assert ref is not None
    return ref


CALLS: dict[str, Callable[[ObjectRef], object]] = {
    "look at": lambda ref: storage.stat(ref.uri),
    "read": lambda ref: storage.read_bytes(ref.uri),
    "read a part": lambda ref: storage.open_ranged(ref).read(10),
    "create": lambda ref: storage.create(ref.uri, b"x"),
    "write": lambda ref: storage.replace(ref.uri, b"x"),
    "swap": lambda ref: storage.swap(ref.uri, b"x", ref.etag),
    "delete": storage.delete,
    "list": lambda ref: list(storage.list_objects(ref.uri)),
}


@pytest.mark.parametrize(
    ("fault", "drops"),
    [("stall", (1, 1)), ("503", (1, 1)), ("trickle", (4, 0.2)), ("trickle", (400, 0.2))],
)
def test_every_call_on_a_store_that_never_gets_well_ends_by_the_deadline(
    s3: Seaweed,
    proxy: FaultProxy,
    hurry: Callable[[], None],
    fault: Fault,
    drops: tuple[int, float],
) -> None:
    """Every answer stalls or trickles, from its first byte or once its head is there."""
    ref = stored(s3.uri("ill"), DATA)
    hurry()
    proxy.drops = drops
    proxy.faults = [(method, fault) for method in ("GET", "PUT", "HEAD", "DELETE")] * 500
    calls = {"read": CALLS["read"]} if drops[0] == 400 else CALLS

    def failure(call: Callable[[ObjectRef], object]) -> tuple[StoreError, float]:
        started = time.monotonic()
        with pytest.raises(StoreError, match=rf"{ref.uri}.*tried \d+ times in \d s") as caught:
            call(ref)
        return caught.value, time.monotonic() - started

    with ThreadPoolExecutor(len(calls)) as pool:
        failures = list(pool.map(failure, calls.values()))
    for error, seconds in failures:
        assert error.transient
        assert "\n" not in str(error)
        assert seconds < SECONDS + LATE
    tries = sum(int(str(error).split("tried ")[1].split()[0]) for error, _ in failures)
    assert len(calls) <= proxy.injected[fault] <= tries  # nobody else tries again


@pytest.mark.parametrize("fault", ["stall", "stall_body"])
def test_a_read_that_stalls_once_is_tried_again_within_its_time(
    s3: Seaweed,
    proxy: FaultProxy,
    hurry: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
) -> None:
    uri = s3.uri("stalls")
    storage.create(uri, DATA)
    proxy.faults = [("GET", fault)]
    hurry()
    monkeypatch.setattr(deadline, "SECONDS", 30.0)
    assert storage.read_bytes(uri) == DATA
    assert proxy.injected == {fault: 1}


def test_an_upload_that_is_too_slow_ends_by_the_deadline_and_is_not_finished_behind_our_back(
    s3: Seaweed, proxy: FaultProxy, hurry: Callable[[], None]
) -> None:
    hurry()
    proxy.sip_pause = 0.05  # 1.3 MB/s: it would take 25 s
    started = time.monotonic()
    with pytest.raises(StoreError, match=r"tried \d+ times in \d s"):
        storage.create(s3.uri("large"), bytes(32 << 20))
    assert time.monotonic() - started < SECONDS + LATE
    while busy() and time.monotonic() - started < 15:
        time.sleep(0.05)
    assert busy() == 0
    assert proxy.requests == []


def busy() -> int:
    """How many calls to the store still run."""
    threads = sum(thread.name == "store" for thread in threading.enumerate())
    return threads - len(deadline._idle.get(os.getpid(), []))


def test_an_operation_has_a_minute_and_a_second_for_every_megabyte() -> None:
    for size, seconds in [(0, 60), (1_000_000, 61), (300_000_000, 360)]:
        assert Deadline(size).left == pytest.approx(seconds, abs=0.1)
    with deadline.ends_within(5):
        assert Deadline(300_000_000).left == pytest.approx(5, abs=0.1)


def test_a_store_that_was_away_for_a_moment_is_waited_for(
    s3: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = s3.uri("restarted")
    with FaultProxy(s3.endpoint) as before:
        monkeypatch.setenv("AWS_ENDPOINT_URL", before.endpoint)
        storage.create(uri, DATA)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(storage.read_bytes(uri)))
    reader.start()
    time.sleep(0.3)
    assert found == []
    with FaultProxy(s3.endpoint, port=before.port) as after:
        reader.join(30)
        assert found == [DATA]
        assert after.requests == ["GET"]


def test_a_held_put_of_a_dead_run_changes_nothing_when_it_arrives_at_last(
    s3: Seaweed, proxy: FaultProxy, hurry: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    created, swapped = s3.uri("create"), s3.uri("swap")
    old = stored(swapped, b"old")
    proxy.faults = [("PUT", "hold")] * 20
    hurry()
    for call in (
        lambda: storage.create(created, b"zombie's"),
        lambda: storage.swap(swapped, b"zombie's", old.etag),
    ):
        with pytest.raises(StoreError, match=r"does not answer .* tried \d+ times") as caught:
            call()
        assert caught.value.transient
    monkeypatch.undo()
    assert storage.create(created, b"ours") is True
    assert storage.swap(swapped, b"ours", old.etag) is True
    before = storage.stat(created), storage.stat(swapped)
    proxy.release()
    give_up = time.monotonic() + 20
    while len(proxy.late) < proxy.injected["hold"] and time.monotonic() < give_up:
        time.sleep(0.02)
    assert proxy.late == [412] * proxy.injected["hold"]
    assert proxy.injected["hold"] >= 2
    assert (storage.stat(created), storage.stat(swapped)) == before


def test_a_byte_that_changed_in_the_store_itself_is_never_read(
    s3: Seaweed, proxy: FaultProxy, hurry: Callable[[], None]
) -> None:
    uri, data = s3.uri("rotten"), random.Random(4).randbytes(5000)
    storage.create(uri, data)
    spoilt = 0
    for file in (s3._folder / "data").glob("*.dat"):
        # A request that was sent twice lies there twice.
        for found in re.finditer(re.escape(data), file.read_bytes()):
            with file.open("r+b") as volume:
                volume.seek(found.start() + 100)
                volume.write(bytes([data[100] ^ 1]))
            spoilt += 1
    assert spoilt, "the object lies in no volume"
    hurry()
    with pytest.raises(StoreError):
        storage.read_bytes(uri)
