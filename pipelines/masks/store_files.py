"""Objects of a store as a read-only filesystem for Arrow, by way of `pipelines.storage`.

Arrow's own S3 client takes a reply that is too short for a full one: the rest of the buffer is then
whatever the memory held before, without an error. Here every read is of one version of the object,
has the length that was asked for, and is tried again under a deadline.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from fsspec import AbstractFileSystem
from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

from pipelines import storage
from pipelines.errors import NotFoundError


class StoreFiles(AbstractFileSystem):  # type: ignore[misc]
    """Opens ``bucket/key`` for reading. It pickles as nothing but its name."""

    protocol = "fcn-store"

    def _open(self, path: str, mode: str = "rb", **options: Any) -> BinaryIO:
        del options
        assert mode == "rb"
        ref = storage.stat(f"s3://{path}")
        if ref is None:
            raise NotFoundError(f"s3://{path} is gone; open the masks again")
        return storage.open_ranged(ref)

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        """What fsspec wants to know of an object. Raises NotFoundError."""
        del options
        ref = storage.stat(f"s3://{path}")
        if ref is None:
            raise NotFoundError(f"there is no s3://{path}")
        return {"name": path, "size": ref.size, "type": "file"}


def store_filesystem() -> FileSystem:
    """The filesystem; paths in it are ``bucket/key``."""
    return PyFileSystem(FSSpecHandler(StoreFiles()))
