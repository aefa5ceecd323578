"""What a network does to a store's answers, by a fault proxy before a real server.

Rows 7, 8, 10 and 11 of the failure matrix; what is compared is bytes and request counts.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from botocore.config import Config

from pipelines import storage
from pipelines.errors import ChangedError
from pipelines.storage import ObjectRef, retry
from pipelines.storage.s3_client import DamageError
from pipelines.storage.s3_read import BodyCheck
from tests.support.proxy import QUICK, Fault, FaultProxy
from tests.support.seaweed import Seaweed

pytestmark = pytest.mark.s3

DATA = bytes(range(256)) * 400


@pytest.fixture
def proxy(s3: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    monkeypatch.setattr(retry, "BASE_PAUSE", 0.005)
    with FaultProxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        yield proxy


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


def test_a_swap_whose_answer_was_lost_is_recognised_by_what_it_wrote(
    s3: Seaweed, proxy: FaultProxy
) -> None:
    uri = s3.uri("lost")
    old = stored(uri, b"old")
    proxy.requests.clear()
    proxy.faults = [("PUT", "lost")]
    assert storage.swap(uri, b"new", old.etag) is True
    assert proxy.requests == ["PUT", "PUT", "GET"]
    assert storage.read_bytes(uri) == b"new"


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
    for _ in range(2):
        with pytest.raises(ChangedError, match=uri) as caught:
            storage.read_bytes(uri, etag=old.etag)
        assert not caught.value.transient
        proxy.faults = [("GET", "strip")]  # now the store ignores If-Match
    assert proxy.requests[-2:] == ["GET", "GET"]


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
    assert proxy.injected.total() > 2
