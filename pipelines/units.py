"""Units: the references to input that travel through the cluster, and how one is read.

A unit is a shard, a range of one, or a group of raw image files. It is a value of a few hundred
bytes; the worker that gets it does the fetching.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from pipelines import storage
from pipelines.errors import (
    ChangedError,
    ImageError,
    InputError,
    NotFoundError,
    ShardError,
    StoreError,
)
from pipelines.label_rules import PNG_IDS, LabelRule
from pipelines.nyu_records import read_nyu
from pipelines.parquet_records import read_label_rows, read_rows
from pipelines.records import LABEL, Record
from pipelines.storage import ObjectRef
from pipelines.tar_records import read_tar

Kind = Literal["parquet", "tar", "raw", "nyud-mat"]
OnError = Literal["raise", "record", "record-all"]

MAX_TAR_BYTES = 2 << 30
MAX_IMAGE_BYTES = 256 << 20

_FETCHES = 8
"""Raw objects that one worker fetches at a time; a store answers slowly but many at once."""


@dataclass(frozen=True)
class Unit:
    """A reference to some input records, each object pinned to a version.

    ``parquet``: one object, rows ``start`` .. ``stop`` - 1, up to the end if ``stop`` is None.
    ``tar``: one object. ``raw``: one key per object, and ``labels`` empty or one per object.
    ``nyud-mat``: one object, NYUDv2's labelled file, of which ``keys`` are read.

    ``planes``, of raw units, are named files, one per object. ``rules`` explain the labels' bytes.
    """

    kind: Kind
    objects: tuple[ObjectRef, ...]
    keys: tuple[str, ...] = ()
    labels: tuple[ObjectRef | None, ...] = ()
    start: int = 0
    stop: int | None = None
    planes: tuple[tuple[str, tuple[ObjectRef, ...]], ...] = ()
    rules: tuple[tuple[str, LabelRule], ...] = ()

    def __post_init__(self) -> None:
        count = len(self.objects)
        assert self.kind == "raw" or count == 1, "a shard unit has one object"
        assert self.kind != "raw" or len(self.keys) == count, "a raw unit has a key per object"
        assert len(self.labels) in {0, count}, "labels are for none or all objects"
        assert all(len(refs) == count for _, refs in self.planes), "planes are for all objects"

    @property
    def records(self) -> int | None:
        """How many records it has, if that is known without reading it."""
        if self.kind in {"raw", "nyud-mat"}:
            return len(self.keys)
        return None if self.stop is None else self.stop - self.start

    @property
    def identity(self) -> str:
        """What is referred to, whatever version: kind, URIs, keys and range, in one line."""
        first = self.objects[0].uri if self.objects else ""
        if self.kind == "tar":
            return f"tar {first}"
        if self.kind == "parquet":
            return f"parquet {first}#{self.start}-{'' if self.stop is None else self.stop}"
        named: list[object] = [
            list(self.keys),
            [ref.uri for ref in self.objects],
            [label and label.uri for label in self.labels],
        ]
        if self.planes:
            named.append([[name, [ref.uri for ref in refs]] for name, refs in self.planes])
        if self.rules:
            named.append([[name, rule.to_json()] for name, rule in self.rules])
        return f"{self.kind} {first}+{len(self.keys) - 1} {_digest(named)}"

    @property
    def version(self) -> str:
        """Which versions of its objects, as a digest of their ETags and sizes."""
        planes = (ref for _, refs in self.planes for ref in refs)
        refs = (*self.objects, *self.labels, *planes)
        return _digest([ref and [ref.etag, ref.size] for ref in refs])

    def only(self, indices: Sequence[int]) -> Unit:
        """The raw unit with the objects at some indices alone."""
        assert self.kind == "raw", "a shard is not taken apart"
        return replace(
            self,
            objects=tuple(self.objects[index] for index in indices),
            keys=tuple(self.keys[index] for index in indices),
            labels=tuple(self.labels[index] for index in indices if self.labels),
            planes=tuple(
                (name, tuple(refs[index] for index in indices)) for name, refs in self.planes
            ),
        )

    def to_json(self) -> str:
        """A compact JSON text; `from_json` reads it back."""
        value = {
            "kind": self.kind,
            "objects": [_ref_out(ref) for ref in self.objects],
            "keys": self.keys,
            "labels": [_ref_out(ref) for ref in self.labels],
            "start": self.start,
            "stop": self.stop,
            "planes": [[name, [_ref_out(ref) for ref in refs]] for name, refs in self.planes],
            "rules": [[name, rule.to_json()] for name, rule in self.rules],
        }
        return json.dumps(value, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Unit:
        """Read what `to_json` wrote."""
        value = json.loads(text)
        return cls(
            kind=value["kind"],
            objects=tuple(ObjectRef(*ref) for ref in value["objects"]),
            keys=tuple(value["keys"]),
            labels=tuple(ref and ObjectRef(*ref) for ref in value["labels"]),
            start=value["start"],
            stop=value["stop"],
            planes=tuple(
                (name, tuple(ObjectRef(*ref) for ref in refs))
                for name, refs in value.get("planes", ())
            ),
            rules=tuple((name, LabelRule.from_json(rule)) for name, rule in value.get("rules", ())),
        )


def read_unit(
    unit: Unit, on_error: OnError = "raise", *, planes: Sequence[str] | None = ()
) -> list[Record]:
    """The unit's records in record order, with the named planes, or with None all that there are.

    Raises NotFoundError or ChangedError if an object is gone or another version, ImageError if a
    raw one is absurdly large, ShardError for a shard that cannot be read as what it is, StoreError
    if the store fails. With ``"record"`` a raw object that is gone, changed, absurdly large or
    refused becomes a record with ``error`` set, kind ``missing``, ``changed``, ``too_large`` or
    ``denied``; a failing store still raises, since it may recover. With ``"record-all"`` that, too,
    becomes a record with an error, kind ``store``. If the store gives no object of the unit at all,
    that raises in any case.
    """
    if unit.kind == "parquet":
        return read_rows(unit.objects[0], unit.start, unit.stop, planes)
    if unit.kind == "nyud-mat":
        return read_nyu(unit.objects[0], unit.keys, dict(unit.rules)[LABEL], planes)
    if unit.kind == "tar":
        ref = unit.objects[0]
        if ref.size > MAX_TAR_BYTES:
            raise ShardError(f"{ref.uri}: {ref.size} bytes; tars over {MAX_TAR_BYTES} are not read")
        return read_tar(ref, storage.read_bytes(ref.uri, etag=ref.etag))
    wanted = {name: refs for name, refs in unit.planes if planes is None or name in planes}
    if missing := [name for name in planes or () if name not in wanted]:
        raise InputError(f"{unit.identity}: there is no plane {missing[0]!r}, which is wanted")
    with ThreadPoolExecutor(_FETCHES) as pool:
        fetch = partial(_fetch_raw, on_error=on_error)
        found = pool.map(
            fetch,
            unit.keys,
            unit.objects,
            unit.labels or (None,) * len(unit.objects),
            [dict(zip(wanted, refs, strict=True)) for refs in zip(*wanted.values(), strict=True)]
            or [{}] * len(unit.objects),
        )
        records = [replace(record, rules=dict(unit.rules)) for record in found]
    _refuse_if_the_store_gives_nothing(records)
    return records


def _refuse_if_the_store_gives_nothing(records: Sequence[Record]) -> None:
    """Raise StoreError where the store did not give a single record: that is no record's fault.

    Wrong credentials would otherwise turn a whole archive into error rows.
    """
    kinds = {record.error[0] if record.error else "" for record in records}
    if records and kinds <= {"store", "denied"} and records[0].error:
        raise StoreError(records[0].error[1], transient="store" in kinds)


@dataclass(frozen=True)
class StoredLabel:
    """A label as it is stored, None if there is none; ``uri`` is that of its image."""

    uri: str
    data: bytes | None
    rule: LabelRule = PNG_IDS


def read_labels(unit: Unit, name: str = LABEL) -> list[StoredLabel]:
    """The label of every record, or the plane ``name`` that is another, in record order.

    Images are not fetched; only a tar, which is one object, is read whole. Raises as `read_unit`.
    """
    if unit.kind == "parquet":
        rows = read_label_rows(unit.objects[0], unit.start, unit.stop, name)
        return [StoredLabel(uri, label) for uri, label in rows]
    if unit.kind == "nyud-mat":
        records = read_nyu(unit.objects[0], unit.keys, dict(unit.rules)[LABEL], images=False)
        return [StoredLabel(record.uri, record.label) for record in records]
    if unit.kind == "tar":
        return [StoredLabel(record.uri, record.label) for record in read_unit(unit)]
    with ThreadPoolExecutor(_FETCHES) as pool:
        refs = unit.labels if name == LABEL else dict(unit.planes)[name]
        found = pool.map(lambda ref: ref and _fetch(ref), refs or (None,) * len(unit.objects))
        rule = dict(unit.rules).get(name, PNG_IDS)
        return [
            StoredLabel(ref.uri, label, rule)
            for ref, label in zip(unit.objects, found, strict=True)
        ]


def _fetch_raw(
    key: str,
    ref: ObjectRef,
    label: ObjectRef | None,
    planes: dict[str, ObjectRef],
    on_error: OnError,
) -> Record:
    try:
        return Record(
            key,
            ref.uri,
            ref.etag,
            _fetch(ref),
            _fetch(label) if label else None,
            planes={name: _fetch(plane) for name, plane in planes.items()},
        )
    except (NotFoundError, StoreError, ImageError) as error:
        kind = _kind_of(error)
        if on_error == "raise" or (kind == "store" and on_error != "record-all"):
            raise
        return Record(key, ref.uri, ref.etag, b"", error=(kind, str(error)))


def _kind_of(error: NotFoundError | StoreError | ImageError) -> str:
    """The kind of the error row that a raw object which cannot be read becomes."""
    if isinstance(error, ImageError):
        return error.kind
    if isinstance(error, NotFoundError):
        return "missing"
    if isinstance(error, ChangedError):
        return "changed"
    return "store" if error.transient else "denied"


def _fetch(ref: ObjectRef) -> bytes:
    if ref.size > MAX_IMAGE_BYTES:
        raise ImageError("too_large", f"{ref.uri}: {ref.size} bytes; at most {MAX_IMAGE_BYTES}")
    return storage.read_bytes(ref.uri, etag=ref.etag)


def _digest(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _ref_out(ref: ObjectRef | None) -> tuple[str, str, int] | None:
    return None if ref is None else (ref.uri, ref.etag, ref.size)
