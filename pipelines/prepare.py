"""Any source to Parquet shards, a manifest and a class list, on the cluster, and only once.

Each shard is committed by one create-only write. Its footer holds a fingerprint of what it was made
from, so that a second run, or one after a crash, makes only what is missing and never mixes two
inputs. The manifest comes last: where it is, everything is.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fcn_model.classes import ClassList
from fcn_model.errors import FCNError
from pipelines import errors, ray_data, storage
from pipelines.errors import ClusterError, InputError
from pipelines.prepared_shard import FINGERPRINT, Receipt, make_shard
from pipelines.schemas import MANIFEST, with_metadata
from pipelines.shards import ShardPlan, plan_shards
from pipelines.sources import MANIFEST as MANIFEST_NAME
from pipelines.sources import Source
from pipelines.storage import ObjectRef
from pipelines.suffixes import is_image_name
from pipelines.units import Unit

OnProgress = Callable[[int, int | None, str], None]

logger = logging.getLogger(__name__)

CLASSES_NAME = "classes.json"


@dataclass(frozen=True)
class Prepared:
    """What lies at ``uri`` now. ``bytes`` counts the shards, ``existing`` those found there."""

    uri: str
    classes: ClassList | None
    records: int
    bytes: int
    shards: int
    existing: int = 0


def prepare(
    source: Source,
    output: str,
    *,
    shard_bytes: int = 64 << 20,
    shard_records: int = 512,
    on_progress: OnProgress | None = None,
) -> Prepared:
    """Write shards ``part-00000-of-00012.parquet`` ..., ``classes.json`` and ``manifest.parquet``.

    ``on_progress`` gets images done, images in all if that is known, and a line of text. Doing the
    same again does nothing and says so. Needs a running Ray.

    In labelled data (``source.classes``) every image must decode and have a label of its size whose
    ids are all in the class list: InputError or LabelError name the image and the value. In an
    unlabelled archive an image that cannot be read keeps its row, with height and width 0. Raises
    InputError if a limit is below 1, or ``output`` holds other shards or lies inside the input,
    StoreError if a store fails, and ClusterError if Ray does.
    """
    if min(shard_bytes, shard_records) < 1:
        raise InputError(
            f"a shard has at least 1 byte and 1 record, got {shard_bytes} and {shard_records}"
        )
    say = on_progress or _silent
    root = storage.parse_uri(output)
    plans = plan_shards(source, shard_bytes, shard_records)
    if not plans:
        raise InputError(f"{source.uri} holds no image; there is nothing to prepare")
    fingerprint = _whole(plans, source)
    present = _present(source, root, plans)
    receipts: dict[str, Receipt] = {}
    if MANIFEST_NAME in present:
        _check_manifest(present[MANIFEST_NAME], fingerprint)
        if all(plan.name in present for plan in plans):
            return _prepared_before(source, root, plans, present, say)
    if source.classes is not None:
        _write_classes(storage.join(root, CLASSES_NAME), source.classes, source.tasks)
    done = 0
    for receipt in _make_all(plans, root, source.classes, source.tasks):
        receipts[receipt.name] = receipt
        done += len(receipt.images)
        verb = "was there" if receipt.existing else "written"
        say(done, source.records, f"{receipt.name} {verb}")
    ordered = [receipts[plan.name] for plan in plans]
    if source.records not in (None, done):
        raise ClusterError(f"{source.records} images went in, {done} came out; run it again")
    _write_manifest(storage.join(root, MANIFEST_NAME), ordered, fingerprint)
    return Prepared(
        uri=root,
        classes=source.classes,
        records=done,
        bytes=sum(receipt.bytes for receipt in ordered),
        shards=len(plans),
        existing=sum(receipt.existing for receipt in ordered),
    )


def _silent(_done: int, _total: int | None, _text: str) -> None:
    """Progress for callers who do not ask."""


def _whole(plans: Sequence[ShardPlan], source: Source) -> str:
    prints = [plan.fingerprint(source.classes, source.tasks) for plan in plans]
    return hashlib.sha256("\n".join(prints).encode()).hexdigest()


def _present(source: Source, root: str, plans: Sequence[ShardPlan]) -> Mapping[str, ObjectRef]:
    """The objects at the output by name. Raises InputError if they are not this plan's."""
    source.refuse_inside(root)
    if not storage.is_s3(root) and not storage.local_path(root).exists():
        return {}
    present = {storage.relative(ref.uri, root): ref for ref in storage.list_objects(root)}
    ours = {plan.name for plan in plans} | {MANIFEST_NAME}
    other = [name for name in present if name not in ours and _is_data(name)]
    if other:
        raise InputError(
            f"{root} holds {len(other)} other data files, such as {other[0]}; "
            f"{len(plans)} shards of {source.uri} would mix with them: choose another output"
        )
    return present


def _is_data(name: str) -> bool:
    return name.endswith((".parquet", ".tar")) or is_image_name(name)


def _check_manifest(ref: ObjectRef, fingerprint: str) -> None:
    with storage.open_ranged(ref) as file:
        try:
            metadata = pq.read_schema(file).metadata or {}
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{ref.uri} is no manifest of ours: {error}") from error
    if metadata.get(FINGERPRINT.encode()) != fingerprint.encode():
        raise InputError(
            f"{ref.uri} belongs to shards of other input or another version of it; "
            "choose another output, or delete the old shards"
        )


def _prepared_before(
    source: Source,
    root: str,
    plans: Sequence[ShardPlan],
    present: Mapping[str, ObjectRef],
    say: OnProgress,
) -> Prepared:
    with storage.open_ranged(present[MANIFEST_NAME]) as file:
        records = pq.read_metadata(file).num_rows
    say(records, records, f"{root} was prepared from this input before; nothing to do")
    size = sum(present[plan.name].size for plan in plans)
    return Prepared(root, source.classes, records, size, len(plans), existing=len(plans))


def _write_classes(uri: str, classes: ClassList, tasks: Mapping[str, ClassList]) -> None:
    value = classes.to_dict()
    if tasks:
        value["tasks"] = {name: task.to_dict() for name, task in tasks.items()}
    data = json.dumps(value, indent=1).encode()
    if not storage.create(uri, data) and storage.read_bytes(uri) != data:
        raise InputError(f"{uri} holds another class list; choose another output")


def _make_all(
    plans: Sequence[ShardPlan],
    root: str,
    classes: ClassList | None,
    tasks: Mapping[str, ClassList] | None = None,
) -> Iterator[Receipt]:
    """Make the shards on the cluster; receipts come as they are done, in any order."""
    ray_data.context()
    rows = [{"name": plan.name, "unit": plan.unit.to_json()} for plan in plans]
    dataset = ray_data.one_row_per_block(rows).map_batches(
        _make_one,
        batch_size=1,
        batch_format="pyarrow",
        fn_kwargs={"root": root, "classes": classes, "tasks": dict(tasks or {})},
    )
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in batch.to_pylist():
                if row["error"]:
                    raise errors.from_data(row)
                yield Receipt.from_json(row["receipt"])
    except ray_data.FAILURES as error:
        raise ClusterError(
            f"Ray could not make the shards of {root}: {ray_data.last_line(error)}"
        ) from error


def _make_one(
    table: pa.Table, root: str, classes: ClassList | None, tasks: Mapping[str, ClassList]
) -> pa.Table:
    """One plan row to one receipt row. Errors travel as data, or they would become tracebacks."""
    row: dict[str, Any] = table.to_pylist()[0]
    answer = {"receipt": "", "error_type": "", "error": ""}
    try:
        plan = ShardPlan(row["name"], Unit.from_json(row["unit"]))
        answer["receipt"] = make_shard(plan, root, classes, tasks).to_json()
    except FCNError as error:
        answer |= errors.as_data(error)
    except Exception as error:
        logger.exception("defect in %s", row["name"])  # the traceback stays in the worker's log
        text = f"Ray could not make {row['name']}: {error!r}; its worker's log says more"
        answer |= {"error_type": "ClusterError", "error": text}
    return pa.Table.from_pylist([answer])


def _write_manifest(uri: str, receipts: Sequence[Receipt], fingerprint: str) -> None:
    rows = [
        {"key": key, "uri": image_uri, "etag": etag, "bytes": size, "shard": each.name, "row": row}
        for each in receipts
        for row, (key, image_uri, etag, size) in enumerate(each.images)
    ]
    schema = with_metadata(MANIFEST, extra={FINGERPRINT: fingerprint})
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file, write_page_checksum=True)
    if not storage.create(uri, file.getvalue()):
        ref = storage.stat(uri)
        assert ref is not None, "an object is in the way, so it is there"
        _check_manifest(ref, fingerprint)
