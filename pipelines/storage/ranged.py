"""A file object over ranged GETs of one pinned object version, for reading parts of Parquet."""

from __future__ import annotations

import io
from typing import Any

from pipelines.storage import s3_read
from pipelines.storage.uris import ObjectRef


class RangedReader(io.RawIOBase):
    """Reads an S3 object at any place; every read is one request with If-Match.

    Unlike the rest of `io`, ``read(n)`` is never short before the end, which pyarrow relies on.
    """

    def __init__(self, ref: ObjectRef) -> None:
        super().__init__()
        self._ref = ref
        self._position = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The offset of the next read in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the offset of the next read; nothing is requested."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._ref.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """The next ``size`` bytes, all up to the end if negative."""
        left = max(0, self._ref.size - self._position)
        count = left if size is None or size < 0 else min(size, left)
        if count == 0:
            return b""
        span = (self._position, self._position + count - 1)
        data = s3_read.read(self._ref.uri, self._ref.etag, span)
        self._position += count
        return data

    def readall(self) -> bytes:
        """Everything from the present offset to the end."""
        return self.read()

    def readinto(self, buffer: Any) -> int:
        """Fill a writable buffer; returns the number of bytes read."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)
