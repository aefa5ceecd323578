"""What a network does to a store's answers, by a fault proxy before a real server.

Rows 5 and 7 to 11 of the failure matrix. Deadlines and pauses are shortened; what is compared is
bytes, request counts and seconds.
"""

from __future__ import annotations

import base64
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from botocore.config import Config

from pipelines import storage
from pipelines.errors import ChangedError, StoreError
from pipelines.storage import ObjectRef, deadline, retry, s3_client
from pipelines.storage.deadline import Deadline
from pipelines.storage.s3_client import DamageError
from pipelines.storage.s3_read import BodyCheck
from tests.support.proxy import QUICK, Fault, FaultProxy
from tests.support.seaweed import Seaweed

pytestmark = pytest.mark.s3

DATA = bytes(range(256)) * 400
SECONDS = 1.0
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


def read_part(uri: str) -> bytes:
    ref = storage.stat(uri)
    assert ref is not None
    with storage.open_ranged(ref) as file:
        file.seek(1000)
        return file.read(5000)


@pytest.mark.parametrize("fault", QUICK)
def test_a_read_survives_every_fault_with_the_right_bytes(
    s3: Seaweed, proxy: FaultProxy, fault: Fault
) -> None:
    uri = s3.uri("read")
    storage.create(uri, DATA)
    proxy.faults = [("GET", fault)] * 2
    assert storage.read_bytes(uri) == DATA
    if fault != "flip":  # a part has no checksum
        proxy.faults += [("GET", fault)] * 2
        assert read_part(uri) == DATA[1000:6000]
    assert proxy.injected == {fault: 2 if fault == "flip" else 4}


def test_of_twenty_flipped_bits_none_is_read_with_or_without_a_stored_checksum(
    s3: Seaweed, proxy: FaultProxy
) -> None:
    uri, plain = s3.uri("sha256"), s3.uri("etag")
    storage.create(uri, DATA)
    bare = boto3.client("s3", config=Config(request_checksum_calculation="when_required"))
    bare.put_object(Bucket=s3.bucket, Key=plain.split("/", 3)[3], Body=DATA)
    for at in (uri, plain):
        for _ in range(10):
            proxy.faults = [("GET", "flip")]
            assert storage.read_bytes(at) == DATA
    assert proxy.injected == {"flip": 20}


def test_a_byte_that_changed_in_the_store_itself_is_never_read(
    s3: Seaweed, proxy: FaultProxy, hurry: Callable[[], None]
) -> None:
    uri, data = s3.uri("rotten"), random.Random(4).randbytes(5000)
    storage.create(uri, data)
    for file in (s3._folder / "data").glob("*.dat"):
        place = file.read_bytes().find(data)
        if place >= 0:
            with file.open("r+b") as volume:
                volume.seek(place + 100)
                volume.write(bytes([data[100] ^ 1]))
            break
    else:
        pytest.fail("the object lies in no volume")
    hurry()
    with pytest.raises(StoreError):
        storage.read_bytes(uri)


MD5_OF_A = "0cc175b9c0f1b6a831c399e269772661"


def test_an_etag_that_is_no_md5_is_accepted_when_the_bytes_come_twice() -> None:
    check = BodyCheck()
    check(b"a", {"ETag": f'"{MD5_OF_A}"'})
    for damaged in (b"b", b"c"):  # two reads that differ: damage
        with pytest.raises(DamageError, match=MD5_OF_A):
            check(damaged, {"ETag": f'"{MD5_OF_A}"'})
    check(b"c", {"ETag": f'"{MD5_OF_A}"'})
    for answer in ({"ETag": f'"{MD5_OF_A}-2"'}, {"ETag": MD5_OF_A, "SSECustomerAlgorithm": "AES"}):
        BodyCheck()(b"x", answer)


@pytest.mark.parametrize(
    ("name", "stored"),
    [  # of "a", as the programs crc32, sha1sum and sha256sum print them
        ("ChecksumCRC32", "e8b7be43"),
        ("ChecksumSHA1", "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8"),
        (
            "ChecksumSHA256",
            "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
        ),
    ],
)
def test_every_stored_checksum_is_compared(name: str, stored: str) -> None:
    answer = {"ETag": '"no-md5"', name: base64.b64encode(bytes.fromhex(stored)).decode()}
    check = BodyCheck()
    check(b"a", answer)
    for _ in range(2):  # unlike an ETag, it is right however often the bytes come
        with pytest.raises(DamageError, match=name):
            check(b"b", answer)


def write_four_times(uri: str) -> None:
    assert storage.create(uri, b"one") is True
    ref = storage.stat(uri)
    assert ref is not None
    assert storage.swap(uri, b"two!", ref.etag) is True
    storage.replace(uri, b"three")
    assert storage.read_bytes(uri) == b"three"
    ref = storage.stat(uri)
    assert ref is not None
    assert storage.delete(ref) is True
    assert storage.stat(uri) is None


@pytest.mark.parametrize("fault", ["500", "503", "reset", "lost"])
def test_every_write_says_what_happened_after_every_fault(
    s3: Seaweed, proxy: FaultProxy, fault: Fault
) -> None:
    proxy.faults = [(method, fault) for method in ("PUT", "PUT", "PUT", "DELETE", "GET", "HEAD")]
    write_four_times(s3.uri("write"))
    assert proxy.injected == {fault: 6}


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
    theirs = stored(uri, b"theirs")
    proxy.faults = [("PUT", "lost"), ("HEAD", "lost")]
    assert storage.create(uri, b"ours") is False
    proxy.faults += [("PUT", "lost"), ("GET", "lost")]
    assert storage.swap(uri, b"ours", "0" * 32) is False
    proxy.faults += [("DELETE", "lost")]
    assert storage.delete(ObjectRef(uri, "0" * 32, 4)) is False
    assert proxy.faults == []
    assert storage.stat(uri) == theirs


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
    assert proxy.injected[fault] >= len(calls)


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


def test_a_listing_repeats_only_the_page_that_failed(
    s3: Seaweed, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = s3.uri("pages")
    refs = [stored(storage.join(root, f"{number}"), b"x") for number in range(7)]
    monkeypatch.setattr("pipelines.storage.s3.PAGE", 2)
    proxy.requests.clear()
    proxy.faults = [("GET", "503"), ("GET", "lost"), ("GET", "reset")]
    assert list(storage.list_objects(root)) == refs
    assert len(proxy.requests) == 4 + 3


def test_another_version_is_refused_even_if_the_store_forgets_to(
    s3: Seaweed, proxy: FaultProxy
) -> None:
    uri = s3.uri("version")
    old = stored(uri, b"old")
    storage.replace(uri, b"new")
    with pytest.raises(ChangedError) as caught:
        storage.read_bytes(uri, etag=old.etag)
    assert not caught.value.transient
    assert proxy.requests[-1] == "GET"


def test_a_third_of_all_requests_may_fail_and_every_answer_is_still_right(
    s3: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "BASE_PAUSE", 0.005)
    seed = random.randrange(10**6)
    with FaultProxy(s3.endpoint, seed=seed, rate=0.33) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write_four_times, [s3.uri("chaos") for _ in range(8)]))
    print(f"seed {seed}: {dict(proxy.injected)} in {len(proxy.requests)} requests")
    assert sum(proxy.injected.values()) > 8
