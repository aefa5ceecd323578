"""The same promises on a real S3 server and on a local disk."""

from __future__ import annotations

import io
import pickle
import random
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.errors import ChangedError, InputError, NotFoundError
from tests.support.seaweed import SECRET_KEY, Seaweed


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return storage.parse_uri(str(tmp_path / "root"))
    return str(request.getfixturevalue("s3").uri())


def in_threads(count: int, call: Callable[[int], object]) -> list[object]:
    """The results of ``call(0)`` .. ``call(count - 1)``, all started at the same moment."""
    results: list[object] = [None] * count
    barrier = threading.Barrier(count)

    def run(index: int) -> None:
        barrier.wait()
        results[index] = call(index)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_what_is_created_is_read_back_whole(root: str, size: int) -> None:
    uri, data = storage.join(root, "a b/100%25 #ä.bin"), random.Random(size).randbytes(size)
    assert storage.stat(uri) is None
    assert storage.create(uri, data) is True
    ref = storage.stat(uri)
    assert ref is not None
    assert (ref.uri, ref.size) == (uri, size)
    assert storage.read_bytes(uri, etag=ref.etag) == data
    assert list(storage.list_objects(root)) == [ref]


def test_a_second_create_says_false_and_changes_nothing(root: str) -> None:
    uri = storage.join(root, "unit")
    storage.create(uri, b"first")
    before = storage.stat(uri)
    assert storage.create(uri, b"second") is False
    assert storage.stat(uri) == before
    assert storage.read_bytes(uri) == b"first"


def create_own(uri: str, index: int) -> bool:
    return storage.create(uri, b"%d" % index * 100_000)


def test_of_racing_creates_exactly_one_wins_and_its_bytes_stay(root: str) -> None:
    for race in range(4):
        uri = storage.join(root, f"race-{race}")
        won = in_threads(3, partial(create_own, uri))
        assert sorted(map(bool, won)) == [False, False, True]
        assert storage.read_bytes(uri) == b"%d" % won.index(True) * 100_000


def test_replace_overwrites_and_a_pinned_reader_is_told(root: str) -> None:
    uri = storage.join(root, "HEAD.json")
    storage.replace(uri, b"one")
    old = storage.stat(uri)
    assert old is not None
    with storage.open_ranged(old) as file:
        assert file.read(1) == b"o"
    storage.replace(uri, b"two!")
    assert storage.read_bytes(uri) == b"two!"
    with pytest.raises(ChangedError, match=uri):
        storage.read_bytes(uri, etag=old.etag)
    with pytest.raises(ChangedError, match=uri):
        storage.open_ranged(old).read()


def add_one(uri: str, _client: int) -> int:
    """Add one to the number in an object, again and again until nobody was faster."""
    for tries in range(1000):
        ref = storage.stat(uri)
        assert ref is not None
        try:
            count = int(storage.read_bytes(uri, etag=ref.etag).split()[0])
        except ChangedError:
            continue
        text = f"{count + 1:03} {uuid.uuid4().hex}"  # always of the same size
        if storage.swap(uri, text.encode(), ref.etag):
            return tries
    raise AssertionError("never the fastest")


def test_no_increment_is_lost_when_three_clients_swap(root: str) -> None:
    uri = storage.join(root, "HEAD.json")
    assert storage.swap(uri, f"000 {uuid.uuid4().hex}".encode(), None) is True
    for _ in range(3):
        in_threads(3, partial(add_one, uri))
    assert storage.read_bytes(uri).startswith(b"009 ")


def test_a_swap_of_another_version_says_false_and_changes_nothing(root: str) -> None:
    uri = storage.join(root, "HEAD.json")
    assert storage.swap(uri, b"new", "3-17") is False
    assert storage.stat(uri) is None
    storage.create(uri, b"one")
    first = storage.stat(uri)
    assert first is not None
    assert storage.swap(uri, b"two", None) is False
    assert storage.swap(uri, b"two", first.etag) is True
    second = storage.stat(uri)
    assert storage.swap(uri, b"six", first.etag) is False
    assert storage.stat(uri) == second
    assert storage.read_bytes(uri) == b"two"


def test_only_the_version_that_was_meant_is_deleted(root: str) -> None:
    uri = storage.join(root, "part")
    storage.create(uri, b"one")
    first = storage.stat(uri)
    assert first is not None
    storage.replace(uri, b"two")
    assert storage.delete(first) is False
    assert storage.read_bytes(uri) == b"two"
    second = storage.stat(uri)
    assert second is not None
    assert storage.delete(second) is True
    assert storage.stat(uri) is None
    assert storage.delete(second) is True


def test_ages_are_told_by_the_clock_of_the_store(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.create(storage.join(root, "old"), b"x")
    started = time.monotonic()
    time.sleep(2.1)  # S3 has whole seconds
    for name in ("_fcn/HEAD.json", ".fcn-1.tmp", "new"):
        storage.create(storage.join(root, name), b"y")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86_400)
    names = ["new", "old"]
    for hidden in (False, True):
        listed = list(storage.list_with_ages(root, hidden=hidden))
        passed = time.monotonic() - started
        names = sorted([".fcn-1.tmp", "_fcn/HEAD.json", *names]) if hidden else names
        assert [ref for ref, _ in listed] == [storage.stat(f"{root}/{name}") for name in names]
        ages = {storage.relative(ref.uri, root): age for ref, age in listed}
        assert 1.0 <= ages["old"] <= passed + 1.1
        assert 0.0 <= ages["new"] <= passed - 1.0


def test_the_listing_is_sorted_by_bytes_and_leaves_out_hidden_names(root: str) -> None:
    names = ["a/b", "a-b", "a.b", "a/c/d", "B", "b", "ä", "z" * 100]
    hidden = ["_fcn/x", "a/_y/z", ".git/x", "a/.z"]
    for name in [*names, *hidden, "_DSC0001.JPG"]:
        storage.create(storage.join(root, name), b"x")
    listed = [storage.relative(ref.uri, root) for ref in storage.list_objects(root)]
    assert listed == sorted(names, key=str.encode)
    every = [
        storage.relative(ref.uri, root) for ref in storage.list_objects(root, underscored=True)
    ]
    assert every == sorted([*names, "_DSC0001.JPG"], key=str.encode)


def test_a_prefix_is_a_folder_and_not_the_beginning_of_a_name(root: str) -> None:
    storage.create(storage.join(root, "data/x"), b"")
    storage.create(storage.join(root, "data-2/y"), b"")
    found = list(storage.list_objects(storage.join(root, "data")))
    assert [ref.uri for ref in found] == [storage.join(root, "data/x")]


def test_a_missing_object_is_named(root: str) -> None:
    uri = storage.join(root, "absent")
    with pytest.raises(NotFoundError, match=uri) as caught:
        storage.read_bytes(uri)
    assert isinstance(caught.value, FileNotFoundError)
    assert "\n" not in str(caught.value)


def test_a_ranged_file_reads_like_the_bytes_it_stands_for(root: str) -> None:
    data = random.Random(1).randbytes(10_000)
    uri = storage.join(root, "shard")
    storage.create(uri, data)
    ref, like, dice = storage.stat(uri), io.BytesIO(data), random.Random(2)
    assert ref is not None
    with storage.open_ranged(ref) as file:
        for _ in range(50):
            offset, whence = dice.choice([(dice.randrange(12_000), 0), (-dice.randrange(9_999), 2)])
            assert file.seek(offset, whence) == like.seek(offset, whence)
            count = dice.choice([0, 1, 17, 5_000, -1])
            assert file.read(count) == like.read(count)
            assert file.tell() == like.tell()


def test_an_arrow_filesystem_shares_the_objects_and_pickles_without_secrets(root: str) -> None:
    system, path = storage.arrow_filesystem(root)
    pickled = pickle.dumps(system)
    assert SECRET_KEY.encode() not in pickled
    restored = pickle.loads(pickled)
    restored.create_dir(path)
    with restored.open_output_stream(f"{path}/x") as stream:
        stream.write(b"by arrow")
    assert storage.read_bytes(storage.join(root, "x")) == b"by arrow"


@pytest.mark.s3
def test_a_bucket_alone_is_no_object(s3: Seaweed) -> None:
    with pytest.raises(InputError, match="an object is wanted"):
        storage.create(f"s3://{s3.bucket}", b"")
