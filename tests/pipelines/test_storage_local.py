from __future__ import annotations

import errno
import fcntl
import os
import pickle
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import storage
from pipelines.errors import ChangedError, InputError, NotFoundError, StoreError


def test_a_reader_sees_nothing_or_the_whole_file(tmp_path: Path) -> None:
    uri, data = storage.parse_uri(str(tmp_path / "part")), os.urandom(8_000_000)
    writer = threading.Thread(target=storage.create, args=(uri, data))
    sizes = set()
    writer.start()
    while writer.is_alive():
        ref = storage.stat(uri)
        sizes.add(ref.size if ref else None)
    writer.join()
    assert sizes <= {None, len(data)}
    assert storage.read_bytes(uri) == data


def swap_it(uri: str, data: bytes) -> bool:
    ref = storage.stat(uri)
    assert ref is not None
    return storage.swap(uri, data, ref.etag)


@pytest.mark.parametrize("write", [storage.create, storage.replace, swap_it])
def test_a_disk_that_is_full_leaves_no_half_file_and_says_how_much_room_is_needed(
    tmp_path: Path, write: Callable[[str, bytes], object]
) -> None:
    uri = storage.parse_uri(str(tmp_path / "part"))
    if write is not storage.create:
        storage.create(uri, b"old")
    before = sorted(tmp_path.iterdir()), storage.stat(uri)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(StoreError, match=f"{uri}: File too large; 1,000,000 bytes are") as e:
            write(uri, bytes(1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert re.search(f" are needed, [0-9,]+ are free in {tmp_path}; make room", str(e.value))
    assert not e.value.transient
    assert (sorted(tmp_path.iterdir()), storage.stat(uri)) == before


@pytest.mark.parametrize(
    ("number", "transient", "text"),
    [
        (errno.ENOSPC, False, "No space left on device; 4 bytes are needed"),
        (errno.EDQUOT, False, "Disk quota exceeded; 4 bytes are needed"),
        (errno.EACCES, False, "Permission denied"),
        (errno.EIO, False, "Input/output error"),
        (errno.ESTALE, True, "Stale file handle"),
        (errno.EMFILE, True, "Too many open files"),
    ],
)
def test_what_the_system_refuses_is_told_and_sorted_by_whether_it_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, transient: bool, text: str
) -> None:
    def refuse(_handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    uri = storage.parse_uri(str(tmp_path / "part"))
    with pytest.raises(StoreError, match=f"{uri}: {text}") as caught:
        storage.create(uri, b"data")
    assert caught.value.transient is transient
    assert list(tmp_path.iterdir()) == []
    copy = pickle.loads(pickle.dumps(caught.value))  # as it comes out of a worker
    assert (type(copy), str(copy), copy.transient) == (StoreError, str(caught.value), transient)


def test_processes_that_swap_lose_no_increment_and_leave_no_lock(tmp_path: Path) -> None:
    """Other than threads, they have no lock in common but the file system's."""
    path = tmp_path / "n"
    uri = storage.parse_uri(str(path))
    storage.create(uri, b"000")
    script = f"""
import sys
from pipelines import storage
from pipelines.errors import ChangedError
done = 0
while done < 50:
    ref = storage.stat({uri!r})
    try:
        count = int(storage.read_bytes(ref.uri, etag=ref.etag))
    except ChangedError:
        continue
    done += storage.swap(ref.uri, b"%03d" % (count + 1), ref.etag)
"""
    running = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [process.wait(60) for process in running] == [0, 0]
    assert path.read_bytes() == b"100"
    assert [path.name for path in tmp_path.iterdir()] == ["n"]


def test_a_swap_waits_for_another_holder_only_for_so_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = storage.parse_uri(str(tmp_path / "n"))
    storage.create(uri, b"0")
    ref = storage.stat(uri)
    assert ref is not None
    monkeypatch.setattr("pipelines.storage.deadline.SECONDS", 0.2)
    with (tmp_path / ".fcn-n.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=r"another process holds .*\.fcn-n\.lock") as caught:
            storage.swap(uri, b"1", ref.etag)
    assert caught.value.transient
    assert storage.swap(uri, b"1", ref.etag) is True


def test_a_version_never_comes_back_however_coarse_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "n"
    uri = storage.parse_uri(str(path))
    real = os.fsync

    def stand_still(handle: int) -> None:
        real(handle)
        os.utime(handle, ns=(5, 5))

    monkeypatch.setattr(os, "fsync", stand_still)
    storage.create(uri, b"0")
    etags = []
    for digit in b"123":
        ref = storage.stat(uri)
        assert ref is not None
        etags.append(ref.etag)
        assert storage.swap(uri, bytes([digit]), ref.etag)
        storage.replace(uri, bytes([digit]))
    assert len(set(etags)) == 3
    assert not any(storage.swap(uri, b"x", etag) for etag in etags)


def test_a_listing_overlooks_files_that_vanish_meanwhile(tmp_path: Path) -> None:
    uri = storage.parse_uri(str(tmp_path))
    names = [f"{number:03}" for number in range(200)]
    for name in names:
        (tmp_path / name).touch()
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            for number in range(50):
                (tmp_path / f".{number}").touch()
            for number in range(50):
                (tmp_path / f".{number}").unlink()

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        for _ in range(20):
            listed = [storage.relative(ref.uri, uri) for ref in storage.list_objects(uri)]
            assert listed == names
    finally:
        ended.set()
        other.join()


def test_no_temporary_file_outlives_a_write(tmp_path: Path) -> None:
    uri = storage.parse_uri(str(tmp_path / "part"))
    storage.create(uri, b"a")
    storage.create(uri, b"b")
    storage.replace(uri, b"c")
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").write_bytes(b"x")
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "sub" / "up").symlink_to(tmp_path / "root")
    root = storage.parse_uri(str(tmp_path / "root"))
    assert [ref.uri for ref in storage.list_objects(root)] == [f"{root}/linked/x"]


@pytest.mark.parametrize("target", ["gone", "x.jpg"], ids=["nothing", "itself"])
def test_a_link_that_leads_nowhere_is_listed_and_cannot_be_read(
    tmp_path: Path, target: str
) -> None:
    (tmp_path / "x.jpg").symlink_to(target)
    (ref,) = storage.list_objects(storage.parse_uri(str(tmp_path)))
    assert ref.size == 0
    assert storage.stat(ref.uri) is None
    with pytest.raises(NotFoundError, match=r"x\.jpg: there is no such file"):
        storage.read_bytes(ref.uri, etag=ref.etag)
    with pytest.raises(NotFoundError, match=r"x\.jpg"), storage.open_ranged(ref):
        pass


@pytest.mark.parametrize("call", ["stat", "listdir"])
def test_what_a_listing_cannot_look_at_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "a.jpg").touch()
    bad = tmp_path / "in" / ("sub" if call == "listdir" else "a.jpg")
    real = getattr(os, call)

    def refuse(path: Path, **options: object) -> object:
        if path == bad:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, **options)

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(StoreError, match=f"cannot list {bad.as_uri()}: Permission denied"):
        list(storage.list_objects(storage.parse_uri(str(tmp_path / "in"))))


def test_a_change_that_keeps_the_size_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    ref = storage.stat(storage.parse_uri(str(path)))
    assert ref is not None
    path.write_bytes(b"new")
    os.utime(path, ns=(0, 1))
    with pytest.raises(ChangedError):
        storage.read_bytes(ref.uri, etag=ref.etag)


def test_wrong_places_give_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    uri = storage.parse_uri(str(tmp_path))
    with pytest.raises(NotFoundError, match=r"there is no folder .*absent"):
        list(storage.list_objects(storage.join(uri, "absent")))
    with pytest.raises(InputError, match="file is a file, a folder is wanted"):
        list(storage.list_objects(storage.join(uri, "file")))
    with pytest.raises(InputError, match="file/below"):
        storage.create(storage.join(uri, "file/below"), b"")
    with pytest.raises(InputError, match="Is a directory"):
        storage.read_bytes(uri)
