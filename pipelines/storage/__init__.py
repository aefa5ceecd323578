"""The one door to bytes: list, read a pinned version, create once, in S3 or on a local disk.

`create` is the commit primitive of the whole project: an object appears whole or not at all, and
of any number of attempts at one name exactly one succeeds, on both kinds of store.

URIs given here are canonical ones, as `parse_uri` and `join` make them. Missing things raise
NotFoundError, other versions than the pinned one ChangedError, and every other refusal of a store
or disk StoreError; each is one line with the URI and what to do. Requests to a store are tried
again while that can help, and end within 60 s and a second per megabyte (`deadline`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, cast

import pyarrow.fs

from pipelines.storage import local, local_write, s3, s3_read
from pipelines.storage.ranged import RangedReader
from pipelines.storage.s3_client import endpoint, region
from pipelines.storage.uris import (
    ObjectRef,
    bucket_and_key,
    is_s3,
    join,
    local_path,
    parse_uri,
    relative,
)

__all__ = [
    "ObjectRef",
    "arrow_filesystem",
    "create",
    "delete",
    "is_s3",
    "join",
    "list_objects",
    "list_with_ages",
    "local_path",
    "open_ranged",
    "parse_uri",
    "read_bytes",
    "relative",
    "replace",
    "stat",
    "swap",
]


def list_objects(root: str, *, underscored: bool = False) -> Iterator[ObjectRef]:
    """Every object below ``root``, sorted bytewise by its key relative to ``root``.

    Names of which a part below ``root`` starts with ``_`` or ``.`` are skipped. ``underscored``
    keeps files (not folders) that start with ``_``, as cameras name photographs. Raises
    NotFoundError if the folder or bucket does not exist; an S3 prefix without objects is empty.
    """
    found = (ref for ref, _ in s3.list_keys(root)) if is_s3(root) else local.list_files(root)
    named = [(relative(ref.uri, root), ref) for ref in found]
    kept = [(key.encode(), ref) for key, ref in named if not _hidden(key, underscored)]
    return (ref for _, ref in sorted(kept))


def list_with_ages(root: str, *, hidden: bool = False) -> Iterator[tuple[ObjectRef, float]]:
    """Every object like `list_objects`, with the seconds since it was written last.

    Both times are the store's or the file system's, so that no clock of ours decides what is old.
    A link to nothing is 0 s old. ``hidden`` lists all names, also those that start with ``_`` or
    ``.``.
    """
    if is_s3(root):
        found = s3.list_keys(root)
    else:
        files = local.list_files(root, hidden=hidden)
        with local.clear_errors(root, "list"):
            now = local_write.clock(local_path(root))
        found = ((ref, local.age(ref, now)) for ref in files)
    named = [(relative(ref.uri, root), ref, age) for ref, age in found]
    kept = [(key.encode(), ref, age) for key, ref, age in named if hidden or not _hidden(key)]
    return ((ref, age) for _, ref, age in sorted(kept))


def stat(uri: str) -> ObjectRef | None:
    """The object as it is now, or None if there is none."""
    return s3.stat(uri) if is_s3(uri) else local.stat(uri)


def read_bytes(uri: str, *, etag: str | None = None) -> bytes:
    """The whole object; with ``etag``, of that version or ChangedError."""
    return s3_read.read(uri, etag) if is_s3(uri) else local.read(uri, etag)


def open_ranged(ref: ObjectRef) -> BinaryIO:
    """The object of that version as a seekable file that fetches only what is read."""
    if is_s3(ref.uri):
        return cast(BinaryIO, RangedReader(ref))
    return local.open_file(ref)


def create(uri: str, data: bytes) -> bool:
    """Create the object, whole and atomically, unless there is one.

    True: this call created it, also if the store's answer was lost on the way. False: an object
    was there before, and it is unchanged. An error: nothing is known to be stored; do it again.
    """
    return s3.create(uri, data) if is_s3(uri) else local_write.create(uri, data)


def replace(uri: str, data: bytes) -> None:
    """Write the object, whole and atomically, over whatever stands there."""
    if is_s3(uri):
        s3.replace(uri, data)
    else:
        local_write.replace(uri, data)


def swap(uri: str, data: bytes, etag: str | None) -> bool:
    """Replace exactly version ``etag`` of the object, whole and atomically; None: `create` it.

    True: the object holds ``data`` now. False: another version stands there, or none, untouched.
    An error: the old version or ``data`` stands there. Of several writers that swap the same
    version one succeeds, provided that each writes something of its own, such as a random id: a
    lost answer is read back, and equal bytes are taken for one's own.
    """
    return s3.swap(uri, data, etag) if is_s3(uri) else local_write.swap(uri, data, etag)


def delete(ref: ObjectRef) -> bool:
    """Delete exactly that version.

    True: it is gone, now or already before. False: another version stands there, untouched.
    """
    return s3.delete(ref) if is_s3(ref.uri) else local_write.delete(ref)


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """A filesystem that pickles without secrets, and the path of ``uri`` in it.

    Only for libraries that demand one, such as Ray Train; it neither pins versions nor creates
    exclusively.
    """
    if not is_s3(uri):
        return pyarrow.fs.LocalFileSystem(), str(local_path(uri))
    import s3fs  # noqa: PLC0415 - takes 0.5 s, and only training needs it

    client: dict[str, object] = {"region_name": region()}
    config: dict[str, object] = {}
    if endpoint():
        client["endpoint_url"] = endpoint()
        config["s3"] = {"addressing_style": "path"}
    system = s3fs.S3FileSystem(client_kwargs=client, config_kwargs=config, skip_instance_cache=True)
    return (
        pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(system)),
        "/".join(bucket_and_key(uri)).rstrip("/"),
    )


def _hidden(key: str, underscored: bool = False) -> bool:
    *folders, name = key.split("/")
    return (
        any(part.startswith(("_", ".")) for part in folders)
        or name.startswith(".")
        or (name.startswith("_") and not underscored)
    )
