"""Objects as local files: whole, create-only and atomic like those in an object store."""

from __future__ import annotations

import os
import stat as stat_bits
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipelines.errors import ChangedError, InputError, NotFoundError, StoreError
from pipelines.storage.uris import ObjectRef, file_uri, local_path


def list_files(root: str) -> list[ObjectRef]:
    """All regular files below ``root``, links followed, in no particular order.

    A dangling link is listed with size 0, so that whoever reads it learns that it is missing.
    Folders of which the name starts with ``_`` or ``.`` are not entered.
    """
    folder = local_path(root)
    if not folder.exists():
        raise NotFoundError(f"there is no folder {folder}; check the path")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, a folder is wanted")
    with _clear_errors(root, "list"):
        return list(_walk(folder, (folder.resolve(),)))


def stat(uri: str) -> ObjectRef | None:
    """The file as it is now, or None if there is none."""
    with _clear_errors(uri, "look at"):
        try:
            status = local_path(uri).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _ref(uri, status) if stat_bits.S_ISREG(status.st_mode) else None


def read(uri: str, etag: str | None) -> bytes:
    """The whole file. Raises ChangedError if it is not, or not any more, the version ``etag``."""
    with _clear_errors(uri, "read"), local_path(uri).open("rb") as file:
        before = _ref(uri, os.fstat(file.fileno()))
        data = file.read()
        after = _ref(uri, os.fstat(file.fileno()))
    if etag not in (None, before.etag) or after != before or len(data) != before.size:
        raise ChangedError(
            f"{uri} changed: version {etag or before.etag} was wanted, now it is {after.etag}"
        )
    return data


def open_file(ref: ObjectRef) -> BinaryIO:
    """The file opened for reading at any place. Raises ChangedError like `read`."""
    with _clear_errors(ref.uri, "read"):
        file = local_path(ref.uri).open("rb")
        now = _ref(ref.uri, os.fstat(file.fileno()))
    if now.etag != ref.etag:
        file.close()
        raise ChangedError(
            f"{ref.uri} changed: version {ref.etag} was wanted, now it is {now.etag}"
        )
    return file


def create(uri: str, data: bytes) -> bool:
    """Write a new file, whole or not at all; False if a file was there before.

    A hard link is the exclusive step: unlike a rename it fails if the name is taken, and unlike an
    exclusive open it never shows half a file.
    """
    path = local_path(uri)
    with _clear_errors(uri, "create"), _written_beside(path, data) as temporary:
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        _sync_folder(path.parent)
        return True


def replace(uri: str, data: bytes) -> None:
    """Write a file, whole or not at all, over whatever stands there."""
    path = local_path(uri)
    with _clear_errors(uri, "write"), _written_beside(path, data) as temporary:
        temporary.replace(path)
        _sync_folder(path.parent)


def _ref(uri: str, status: os.stat_result) -> ObjectRef:
    return ObjectRef(uri, f"{status.st_size:x}-{status.st_mtime_ns:x}", status.st_size)


def _walk(folder: Path, ancestors: tuple[Path, ...]) -> Iterator[ObjectRef]:
    for path in folder.iterdir():
        try:
            path.name.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"file name {str(path)!r} is not UTF-8; rename it") from error
        if path.is_dir():
            target = path.resolve()  # a link to a folder that holds it would never end
            if target not in ancestors and not path.name.startswith(("_", ".")):
                yield from _walk(path, (*ancestors, target))
        elif path.is_file():
            yield _ref(file_uri(path), path.stat())
        elif path.is_symlink():
            yield ObjectRef(file_uri(path), "missing", 0)


@contextmanager
def _written_beside(path: Path, data: bytes) -> Iterator[Path]:
    """A temporary file with ``data`` in the folder of ``path``, on disk; removed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".fcn-{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _clear_errors(uri: str, verb: str) -> Iterator[None]:
    """Turn the operating system's errors into ours, with the URI in the message."""
    try:
        yield
    except (InputError, StoreError):
        raise
    except FileNotFoundError as error:
        raise NotFoundError(f"cannot {verb} {uri}: there is no such file") from error
    except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
        raise InputError(f"cannot {verb} {uri}: {error.strerror}") from error
    except OSError as error:
        raise StoreError(f"cannot {verb} {uri}: {error.strerror or error}") from error
