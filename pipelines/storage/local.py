"""Reading local files like objects in a store: listed, and pinned to a version.

A file's version is its size and modification time; `local_write` sees to it that what it writes
over a file has another one.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat as stat_bits
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from pipelines.errors import ChangedError, InputError, NotFoundError, StoreError
from pipelines.storage.uris import ObjectRef, file_uri, local_path

_MISSING = "missing"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PASSING = {errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_PASSING |= {errno.ESTALE}  # of a network file system
_NOTHING_THERE = {errno.ENOENT, errno.ELOOP}

_T = TypeVar("_T")


def list_files(root: str, *, hidden: bool = False) -> list[ObjectRef]:
    """All regular files below ``root``, links followed, in no particular order.

    A link to nothing, or in a circle, is listed with size 0, so that whoever reads it learns that
    it is missing.
    Folders of which the name starts with ``_`` or ``.`` are not entered unless ``hidden``.
    """
    folder = local_path(root)
    if not folder.exists():
        raise NotFoundError(f"there is no folder {folder}; check the path")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, a folder is wanted")
    with clear_errors(root, "list"):
        return list(_walk(folder, (folder.resolve(),), hidden))


def age(ref: ObjectRef, now: float) -> float:
    """Seconds from the last change of a listed file to ``now``; 0 for a dangling link."""
    if ref.etag == _MISSING:
        return 0.0
    return max(0.0, now - int(ref.etag.split("-")[1], 16) / 1e9)


def stat(uri: str) -> ObjectRef | None:
    """The file as it is now, or None if there is none."""
    with clear_errors(uri, "look at"):
        try:
            status = local_path(uri).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return None
        return ref_of(uri, status) if stat_bits.S_ISREG(status.st_mode) else None


def read(uri: str, etag: str | None) -> bytes:
    """The whole file. Raises ChangedError if it is not, or not any more, the version ``etag``."""
    with clear_errors(uri, "read"), local_path(uri).open("rb") as file:
        before = ref_of(uri, os.fstat(file.fileno()))
        data = file.read()
        after = ref_of(uri, os.fstat(file.fileno()))
    if etag not in (None, before.etag) or after != before or len(data) != before.size:
        raise ChangedError(
            f"{uri} changed: version {etag or before.etag} was wanted, now it is {after.etag}"
        )
    return data


def open_file(ref: ObjectRef) -> BinaryIO:
    """The file opened for reading at any place. Raises ChangedError like `read`."""
    with clear_errors(ref.uri, "read"):
        file = local_path(ref.uri).open("rb")
        now = ref_of(ref.uri, os.fstat(file.fileno()))
    if now.etag != ref.etag:
        file.close()
        raise ChangedError(
            f"{ref.uri} changed: version {ref.etag} was wanted, now it is {now.etag}"
        )
    return file


def ref_of(uri: str, status: os.stat_result) -> ObjectRef:
    """The version of a file that has this status."""
    return ObjectRef(uri, f"{status.st_size:x}-{status.st_mtime_ns:x}", status.st_size)


@contextmanager
def clear_errors(uri: str, verb: str, size: int = 0) -> Iterator[None]:
    """Turn the operating system's errors into ours, with the URI in the message.

    ``size`` is how many bytes were to be written.
    """
    try:
        yield
    except (InputError, StoreError):
        raise
    except FileNotFoundError as error:
        raise NotFoundError(f"cannot {verb} {uri}: there is no such file") from error
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise InputError(f"cannot {verb} {uri}: {error.strerror}") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            text = f"cannot {verb} {uri}: there is no such file, its links lead in a circle"
            raise NotFoundError(text) from error
        text = f"cannot {verb} {uri}: {error.strerror or error}"
        if error.errno in _FULL:
            text += f"; {_room(local_path(uri), size)}; make room and start again"
        passing = error.errno in _PASSING or isinstance(error, TimeoutError)
        raise StoreError(text, transient=passing) from error


def _room(path: Path, size: int) -> str:
    folder = next(parent for parent in path.parents if parent.is_dir())
    free = shutil.disk_usage(folder).free
    return f"{size:,} bytes are needed, {free:,} are free in {folder}"


def _walk(folder: Path, ancestors: tuple[Path, ...], hidden: bool) -> Iterator[ObjectRef]:
    for name in _told(os.listdir, folder):
        path = folder / name
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"file name {str(path)!r} is not UTF-8; rename it") from error
        if _told(Path.is_dir, path):
            target = _told(Path.resolve, path)  # a link to a folder that holds it would never end
            if target not in ancestors and (hidden or not name.startswith(("_", "."))):
                yield from _walk(path, (*ancestors, target), hidden)
        elif (ref := _told(_listed, path)) is not None:
            yield ref


def _told(look: Callable[[Path], _T], path: Path) -> _T:
    """What ``look`` says of a path of a listing; an error names this path, not the listing's."""
    try:
        return look(path)
    except OSError:
        with clear_errors(file_uri(path), "list"):
            raise


def _listed(path: Path) -> ObjectRef | None:
    """A regular file, or a link to nothing or in a circle; None for others and what was removed.

    Others may be writing here: their temporary files come and go.
    """
    try:
        status = path.stat()
    except OSError as error:
        if error.errno not in _NOTHING_THERE:
            raise
        return ObjectRef(file_uri(path), _MISSING, 0) if path.is_symlink() else None
    return ref_of(file_uri(path), status) if stat_bits.S_ISREG(status.st_mode) else None
