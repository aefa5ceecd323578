from __future__ import annotations

import errno
import os
import threading
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


@pytest.mark.parametrize("write", [storage.create, storage.replace])
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: object
) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    uri = storage.parse_uri(str(tmp_path / "part"))
    with pytest.raises(StoreError, match=f"{uri}: No space left"):
        write(uri, b"data")  # type: ignore[operator]
    assert list(tmp_path.iterdir()) == []


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


def test_a_dangling_link_is_listed_and_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").symlink_to(tmp_path / "gone")
    (ref,) = storage.list_objects(storage.parse_uri(str(tmp_path)))
    with pytest.raises(NotFoundError, match=r"x\.jpg"):
        storage.read_bytes(ref.uri, etag=ref.etag)


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
