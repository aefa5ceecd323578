"""One part against everything that is said of it: by the snapshot, by its footer, by the plan.

The bytes are read whole and hashed before they are parsed. Every figure is counted from the rows
again, not taken from the footer that the same writer wrote.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.errors import ChangedError, NotFoundError, StoreError
from pipelines.masks.coverage import Hashes, Held, hashes, held_by
from pipelines.masks.generation import short_hash
from pipelines.masks.parts import Described, Stats, described
from pipelines.masks.row_check import wrong_in_mask, wrong_in_row
from pipelines.masks.snapshots import SnapshotPart
from pipelines.masks.verdict import Kind
from pipelines.schemas import MASKS
from pipelines.storage import ObjectRef


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a part must be."""

    uri: str
    found: ObjectRef | None
    """As it was listed, None if it was not."""
    part: SnapshotPart
    """What the snapshot says of it."""
    generation: str
    model: str | None
    """The model's digest, None if the generation's record is damaged."""
    records: int | None = None
    """Of the planned unit, if the plan knows."""
    masks: int | None = None
    """How many masks to decode, None for all."""

    @property
    def key(self) -> tuple[str, str]:
        """What it is about: one part, in the bytes that a snapshot names."""
        return self.uri, self.part.sha256


@dataclass(kw_only=True)
class Checked:
    """What was found in a part."""

    found: ObjectRef | None
    """The version that was looked at."""
    bytes: int = 0
    rows: int = 0
    ok: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    masks: int = 0
    faults: list[tuple[Kind, str]] = field(default_factory=list)
    keys: Hashes = field(default_factory=lambda: hashes(()))
    """Hashes of the rows' keys, which are far smaller than the keys."""
    held: Held | None = None
    """Which input its rows stand for."""


class Budget:
    """Bytes that threads may hold at once; who wants more waits. One part may be larger alone."""

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit
        self._freed = threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Wait for ``size`` bytes, and give them back at the end."""
        size = min(size, self._limit)
        with self._freed:
            self._freed.wait_for(lambda: self._left >= size)
            self._left -= size
        try:
            yield
        finally:
            with self._freed:
                self._left += size
                self._freed.notify_all()


def check_part(expected: Expected, budget: Budget) -> Checked:
    """Read a part and compare. Raises StoreError if the store does not answer at all."""
    checked = Checked(found=expected.found)
    if expected.found is None:
        rows = expected.part.rows
        checked.faults.append(("lost", f"it is not there; it had {rows} rows"))
        return checked
    with budget.hold(2 * expected.found.size):
        data = _read(expected.found, checked)
        if data is None:
            return checked
        checked.bytes = len(data)
        digest = hashlib.sha256(data).hexdigest()
        if digest != expected.part.sha256:
            text = f"its bytes have the SHA-256 {digest}, not {expected.part.sha256}"
            checked.faults.append(("damaged", text))
            return checked
        if expected.found.etag != expected.part.etag:
            text = f"it has the version {expected.found.etag}, not {expected.part.etag}"
            checked.faults.append(("copied", text))
        try:
            _check_content(data, expected, checked)
        except (pa.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
            reason = (str(error).splitlines() or [""])[0]
            checked.faults.append(("damaged", f"it cannot be read: {reason}"))
    return checked


def _read(ref: ObjectRef, checked: Checked) -> bytes | None:
    try:
        return storage.read_bytes(ref.uri, etag=ref.etag)
    except NotFoundError:
        checked.faults.append(("lost", "it was there a moment ago and is gone"))
    except ChangedError as error:
        checked.faults.append(("damaged", str(error)))
    except StoreError as error:
        storage.stat(ref.uri)  # raises if the store is down; then nothing is said of the part
        checked.faults.append(("damaged", f"it cannot be read: {error}"))
    return None


def _check_content(data: bytes, expected: Expected, checked: Checked) -> None:
    with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
        said = described(file.metadata)
        types = {field.name: field.type for field in file.schema_arrow}
        wrong = [column.name for column in MASKS if types.get(column.name) != column.type]
        if wrong:
            checked.faults.append(("damaged", f"columns {wrong} are missing or of another type"))
            return
        rows = []
        for group in range(file.num_row_groups):
            rows += _check_group(file.read_row_group(group, use_threads=False), expected, checked)
    checked.rows = len(rows)
    checked.ok = sum(row["status"] == "ok" for row in rows)
    checked.errors.update(row["error_kind"] for row in rows if row["status"] != "ok")
    checked.keys = hashes(row["key"] for row in rows)
    checked.held = held_by((said.identity or {}).get("input", ""), expected.part.name, rows)
    checked.faults += [("damaged", text) for text in _wrong_identity(said, expected)]
    checked.faults += [("damaged", text) for text in _wrong_sums(said, expected, rows)]
    checked.faults += _wrong_records([row["record"] for row in rows])


def _check_group(table: pa.Table, expected: Expected, checked: Checked) -> list[dict[str, Any]]:
    """The rows of a row group without their masks, which were looked at."""
    masks = table["mask"]
    rows: list[dict[str, Any]] = table.drop_columns(["mask"]).to_pylist()
    chosen = chosen_records(expected.part, expected.masks)
    for row, stored in zip(rows, masks, strict=True):
        mask = stored.as_py()
        fault = wrong_in_row(row, mask, expected.part.name.unit, expected.model)
        if fault is None and mask is not None and (chosen is None or row["record"] in chosen):
            fault = wrong_in_mask(mask["bytes"], row)
            checked.masks += 1
        if fault is not None:
            text = f"record {row['record']} ({row['key']}): {fault}"
            checked.faults.append(("damaged", text))
    return rows


def chosen_records(part: SnapshotPart, masks: int | None) -> frozenset[int] | None:
    """Which masks are decoded, None for all: spread evenly, from a place that the bytes decide."""
    if masks is None:
        return None
    rows = max(1, part.rows)
    first = int(part.sha256[:8], 16)
    return frozenset((first + index * rows // masks) % rows for index in range(masks))


def _wrong_identity(said: Described, expected: Expected) -> Iterator[str]:
    if said.identity is None or said.stats is None:
        yield "its footer does not say that it is one of ours"
        return
    name = expected.part.name
    wanted = {"generation": expected.generation, "unit": name.unit, "version": name.version}
    for key, value in wanted.items():
        if said.identity.get(key) != value:
            yield f"its footer says {key} {said.identity.get(key)!r}, its name {value!r}"
    unit = said.identity.get("input")
    if short_hash(str(unit)) != name.unit:
        yield f"its footer says it is of {unit!r}, which does not give its name"
    for where, records in (
        ("footer", said.identity.get("records")),
        ("plan", expected.records),
        ("snapshot", expected.part.rows),
    ):
        if records != said.rows and not (where == "plan" and records is None):
            yield f"it has {said.rows} rows, its {where} says {records}"


def _wrong_sums(
    said: Described, expected: Expected, rows: Sequence[dict[str, Any]]
) -> Iterator[str]:
    counted = Stats.of(rows, len(expected.part.class_pixels))
    if said.stats is not None and counted != said.stats:
        yield f"its footer says {said.stats}, its rows add up to {counted}"
    part = expected.part
    if (counted.errors, counted.transient, counted.class_pixels) != (
        part.errors,
        part.transient,
        part.class_pixels,
    ):
        yield f"the snapshot says {part}, its rows add up to {counted}"


def _wrong_records(numbers: Sequence[int]) -> Iterator[tuple[Kind, str]]:
    """Records must be 0 .. n-1, each once."""
    count = Counter(numbers)
    for number in (number for number, times in count.items() if times > 1):
        yield "doubled", f"record {number} stands {count[number]} times"
    absent = [number for number in range(len(numbers)) if number not in count]
    if absent:
        yield "damaged", f"of records 0 to {len(numbers) - 1} there is no {absent[:5]}"
