"""A reader that polls an output while it is written, and notes everything that must not happen."""

from __future__ import annotations

import io
import threading
from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


class Watcher(threading.Thread):
    """Reads every part of a prefix as it appears, straight from the store. A context manager.

    After it: ``polls``; ``changed`` and ``vanished`` parts, which were there in an earlier poll
    with another ETag or at all; ``unreadable`` ones; ``keys``, how often each record was seen in
    the last poll, by (unit, record).
    """

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        super().__init__(daemon=True)
        self.polls = 0
        self.changed: list[str] = []
        self.vanished: list[str] = []
        self.unreadable: list[str] = []
        self.rows: dict[str, list[tuple[str, str, int]]] = {}
        self._etags: dict[str, str] = {}
        self._client, self._bucket, self._prefix = client, bucket, prefix
        self._end = threading.Event()

    def __enter__(self) -> Watcher:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()
        self.poll()

    def run(self) -> None:
        """Poll until the end."""
        while not self._end.wait(0.2):
            self.poll()

    def poll(self) -> None:
        """List once, and read what is new."""
        seen: dict[str, str] = {}
        for page in self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=f"{self._prefix}/data/"
        ):
            seen |= {entry["Key"]: entry["ETag"] for entry in page.get("Contents", ())}
        self.vanished += [key for key in self._etags if key not in seen]
        self.changed += [key for key, etag in self._etags.items() if seen.get(key, etag) != etag]
        for key in seen.keys() - self._etags.keys():
            body = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
            try:
                table = pq.read_table(io.BytesIO(body), page_checksum_verification=True)
            except (pa.ArrowException, OSError):
                self.unreadable.append(key)
                continue
            columns = (table[name].to_pylist() for name in ("uri", "unit", "record"))
            self.rows[key] = list(zip(*columns, strict=True))
        self._etags = seen
        self.polls += 1

    def counts(self) -> Counter[str]:
        """How often each input URI stands in the parts of the last poll."""
        return Counter(uri for rows in self.rows.values() for uri, _, _ in rows)
