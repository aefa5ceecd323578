"""Writing local files like objects in a store: whole or not at all, and on a condition.

What is guaranteed depends on the file system. `create` needs hard links, and of any number of
creations one succeeds, on network file systems too. `swap` excludes other swaps by `flock`: on one
machine always, between machines where the file system carries locks over (NFS does). `delete`
compares, then unlinks: what is written between the two is lost with the file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipelines.storage.deadline import Deadline
from pipelines.storage.local import clear_errors, ref_of
from pipelines.storage.uris import ObjectRef, local_path

_LOCK_POLL_SECONDS = 0.005
_TICKS = (1, 1_000, 2_000_000_000)
"""Nanoseconds that file systems tell apart at least; the last one is FAT's."""

_MAY_NOT_WRITE = {errno.EACCES, errno.EPERM, errno.EROFS}


def create(uri: str, data: bytes) -> bool:
    """Write a new file, whole or not at all; False if a file was there before.

    A hard link is the exclusive step: unlike a rename it fails if the name is taken, and unlike an
    exclusive open it never shows half a file.
    """
    path = local_path(uri)
    with clear_errors(uri, "create", len(data)), _written_beside(path, data) as temporary:
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        _sync_folder(path.parent)
        return True


def replace(uri: str, data: bytes) -> None:
    """Write a file, whole or not at all, over whatever stands there."""
    path = local_path(uri)
    with clear_errors(uri, "write", len(data)), _written_beside(path, data) as temporary:
        _put_over(path, temporary)


def swap(uri: str, data: bytes, etag: str | None) -> bool:
    """Write a file over version ``etag``, or a new one if that is None; False if it is another."""
    if etag is None:
        return create(uri, data)
    path = local_path(uri)
    with clear_errors(uri, "swap", len(data)):
        if not path.exists():
            return False
        with _locked(path), _written_beside(path, data) as temporary:
            if not _is_version(path, ObjectRef(uri, etag, 0)):
                return False
            _put_over(path, temporary)
            return True


def delete(ref: ObjectRef) -> bool:
    """Remove that version; True if it is gone afterwards, False if another stands there."""
    path = local_path(ref.uri)
    with clear_errors(ref.uri, "delete"):
        if path.exists() and not _is_version(path, ref):
            return False
        path.unlink(missing_ok=True)
        return True


def clock(folder: Path) -> float:
    """The time, in seconds since 1970, that the folder's file system gives a file now."""
    try:
        with _written_beside(folder / "now", b"") as temporary:
            return temporary.stat().st_mtime
    except OSError as error:
        if error.errno not in _MAY_NOT_WRITE:
            raise
        return time.time()  # who cannot write here cannot do harm with this machine's clock


def _is_version(path: Path, ref: ObjectRef) -> bool:
    try:
        return ref_of(ref.uri, path.stat()).etag == ref.etag
    except FileNotFoundError:
        return False


def _put_over(path: Path, temporary: Path) -> None:
    """Rename over a file, later than that one: clocks are coarse, and a time is half a version."""
    try:
        old = path.stat().st_mtime_ns
    except FileNotFoundError:
        old = 0
    for tick in _TICKS:
        if temporary.stat().st_mtime_ns > old:
            break
        os.utime(temporary, ns=(old + tick, old + tick))
    temporary.replace(path)
    _sync_folder(path.parent)


@contextmanager
def _written_beside(path: Path, data: bytes) -> Iterator[Path]:
    """A temporary file with ``data`` in the folder of ``path``, on disk; removed at the end."""
    temporary = path.parent / f".fcn-{uuid.uuid4().hex}.tmp"
    try:
        with _new_file(temporary) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _new_file(path: Path) -> BinaryIO:
    """A new file for writing, in a folder that is made for it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")
    except FileNotFoundError:  # a probe of another process has just removed the folder it made
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep others that lock the same path out. Raises TimeoutError after a store's deadline.

    The lock is a hidden file beside it, which its holder removes: whoever then holds the lock of a
    removed file has to ask again.
    """
    lock = path.parent / f".fcn-{path.name}.lock"
    deadline = Deadline()
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if lock.exists() and os.path.samestat(os.fstat(handle), lock.stat()):
                break
        except (BlockingIOError, FileNotFoundError):
            deadline.check(f"another process holds {lock}; it did not give it back")
            time.sleep(_LOCK_POLL_SECONDS)
        os.close(handle)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
