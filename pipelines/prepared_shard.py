"""One shard of a prepared data set: read its unit, check it, write it once. Runs without Ray."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from fcn_model.classes import ClassList
from pipelines import images, storage
from pipelines.decoding import decode_pair
from pipelines.errors import ForeignObjectError, ImageError, InputError, ShardError
from pipelines.parquet_records import read_footer, read_rows
from pipelines.records import LABEL, Record
from pipelines.shards import ShardPlan, write_shard
from pipelines.storage import ObjectRef
from pipelines.units import read_unit

FINGERPRINT = "fcn.prepared_from"


@dataclass(frozen=True)
class Receipt:
    """What a finished shard holds. ``images`` has (key, uri, etag, bytes) of each row, in order."""

    name: str
    images: tuple[tuple[str, str, str, int], ...]
    bytes: int
    existing: bool

    def to_json(self) -> str:
        """A JSON text; `from_json` reads it back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Receipt:
        """Read what `to_json` wrote."""
        value = json.loads(text)
        return cls(**{**value, "images": tuple(tuple(image) for image in value["images"])})


def make_shard(
    plan: ShardPlan,
    root: str,
    classes: ClassList | None,
    tasks: Mapping[str, ClassList] | None = None,
) -> Receipt:
    """Make sure that the planned shard lies below ``root``.

    A shard that is there is compared by its fingerprint and left alone. Raises InputError or
    LabelError for labelled data that cannot be trained on, ForeignObjectError if something else
    has the shard's name, and what `read_unit` and the storage raise.
    """
    uri = storage.join(root, plan.name)
    fingerprint = plan.fingerprint(classes, tasks)
    if (ref := storage.stat(uri)) is not None:
        return _existing(plan.name, ref, fingerprint)
    try:
        read = read_unit(plan.unit, planes=None)
    except ImageError as error:
        raise InputError(f"an image file cannot be used: {error}") from error
    records = [check_record(record, classes, tasks) for record in read]
    data = write_shard(records, classes, tasks=tasks, metadata={FINGERPRINT: fingerprint})
    if storage.create(uri, data):
        return _receipt(plan.name, records, len(data), existing=False)
    # Another attempt at the same plan was faster. Its shard counts.
    winner = storage.stat(uri)
    assert winner is not None, "an object is in the way, so it is there"
    return _existing(plan.name, winner, fingerprint)


def check_record(
    record: Record, classes: ClassList | None, tasks: Mapping[str, ClassList] | None = None
) -> Record:
    """The record as it goes into a shard, where labels are PNGs of ids and need no rule.

    A record of labelled data must be one that can be trained on, and a record of unlabelled data
    just that. Raises InputError, or LabelError for ids and sizes, naming the image.
    """
    if classes is None:
        if record.label is not None:
            raise InputError(
                f"image {record.key} ({record.uri}) has a label, but nothing says what its ids "
                "mean; put a classes.json at the root of the data"
            )
        return record
    pair = decode_pair(record, classes, tasks)
    if not record.rules:
        return record
    painted = {
        name: images.encode_label(pair.planes[name], (tasks or {})[name])
        for name in record.rules
        if name in pair.planes
    }
    label = images.encode_label(pair.label, classes) if LABEL in record.rules else record.label
    return replace(record, label=label, planes={**record.planes, **painted}, rules={})


def _existing(name: str, ref: ObjectRef, fingerprint: str) -> Receipt:
    try:
        stored = read_footer(ref).metadata.get(FINGERPRINT)
    except ShardError as error:
        raise ForeignObjectError(f"a shard belongs here, but something else is: {error}") from error
    if stored != fingerprint:
        raise ForeignObjectError(
            f"{ref.uri} was made from other input; choose another output, or delete the old shards"
        )
    return _receipt(name, read_rows(ref), ref.size, existing=True)


def _receipt(name: str, records: Sequence[Record], size: int, *, existing: bool) -> Receipt:
    listed = tuple((each.key, each.uri, each.etag, len(each.image)) for each in records)
    return Receipt(name, listed, size, existing)
