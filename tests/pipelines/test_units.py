from __future__ import annotations

import io
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.errors import ChangedError, ImageError, NotFoundError, ShardError, StoreError
from pipelines.label_rules import LabelRule
from pipelines.parquet_records import read_footer
from pipelines.records import Record
from pipelines.shards import ROWS_PER_GROUP, write_shard
from pipelines.storage import ObjectRef
from pipelines.units import Unit, read_unit
from tests.support.proxy import FaultProxy
from tests.support.seaweed import Seaweed

A = ObjectRef("s3://data/a.jpg", "e1", 10)
B = ObjectRef("s3://data/b.jpg", "e2", 20)
LABEL = ObjectRef("s3://data/a.png", "e3", 5)

UNITS = {
    "shard": Unit("parquet", (A,)),
    "range": Unit("parquet", (A,), start=32, stop=64),
    "tar": Unit("tar", (A,)),
    "raw": Unit("raw", (A, B), keys=("a", "b")),
    "labelled": Unit("raw", (A, B), keys=("a", "b"), labels=(LABEL, None)),
    "planes": Unit(
        *("raw", (A,)),
        keys=("a",),
        labels=(LABEL,),
        planes=(("geo", (B,)),),
        rules=(("label", LabelRule(member=("S",), table=bytes([255, 0, 1]))),),
    ),
}


@pytest.mark.parametrize(
    ("name", "identity", "version"),
    [
        ("shard", "parquet s3://data/a.jpg#0-", "3d3be20a2dc1a2344a79a37ba8705a3c"),
        ("range", "parquet s3://data/a.jpg#32-64", "3d3be20a2dc1a2344a79a37ba8705a3c"),
        ("tar", "tar s3://data/a.jpg", "3d3be20a2dc1a2344a79a37ba8705a3c"),
        (
            "raw",
            "raw s3://data/a.jpg+1 ea05b4847e3077a5d93f31dab720907b",
            "a90e9f2c648d7adb0a532707b4467746",
        ),
        (
            "labelled",
            "raw s3://data/a.jpg+1 47ec15b87ae9cf57527c15dd958066a0",
            "d405e941a93bbebab7fc3526ca37c1f3",
        ),
        (
            "planes",
            "raw s3://data/a.jpg+0 255bdc19a86d65f6f3ed8a36bcf3ad21",
            "d1f60cf99c75b5993593873c0669dcdb",
        ),
    ],
)
def test_identity_and_version_never_change(name: str, identity: str, version: str) -> None:
    """Results of earlier nights are found by these strings.

    The digests are the first 32 digits that ``sha256sum`` gives for, as an example,
    ``[["e1",10],["e2",20],["e3",5],null]`` and
    ``[["a","b"],["s3://data/a.jpg","s3://data/b.jpg"],["s3://data/a.png",null]]``; with planes and
    rules there follow ``[["geo",["s3://data/b.jpg"]]],[["label",[["S"],0,"/wAB"]]]``.
    """
    assert (UNITS[name].identity, UNITS[name].version) == (identity, version)


def test_identity_knows_no_version_and_version_no_place() -> None:
    newer = Unit("raw", (A, ObjectRef(B.uri, "e9", 20)), keys=("a", "b"))
    assert newer.identity == UNITS["raw"].identity
    assert newer.version != UNITS["raw"].version
    renamed = Unit("raw", (A, B), keys=("a", "c"))
    assert renamed.identity != UNITS["raw"].identity
    assert UNITS["labelled"].identity != UNITS["raw"].identity
    assert UNITS["range"].version == UNITS["shard"].version


@pytest.mark.parametrize("name", list(UNITS))
def test_a_unit_survives_json(name: str) -> None:
    assert Unit.from_json(UNITS[name].to_json()) == UNITS[name]


def test_records_are_counted_where_they_are_known() -> None:
    counts = {name: unit.records for name, unit in UNITS.items()}
    assert counts == {"shard": None, "range": 32, "tar": None, "raw": 2, "labelled": 2, "planes": 1}


def shard_records(count: int, size: int = 20_000) -> list[Record]:
    """Records with incompressible images of ``size`` bytes."""
    return [
        Record(f"key-{i}", f"s3://d/{i}.jpg", f"e{i}", random.Random(i).randbytes(size), b"label")
        for i in range(count)
    ]


def stored(root: str, name: str, data: bytes) -> ObjectRef:
    uri = storage.join(root, name)
    assert storage.create(uri, data)
    ref = storage.stat(uri)
    assert ref is not None
    return ref


def test_any_range_of_a_shard_is_that_slice_of_its_records(tmp_path: Path) -> None:
    records = shard_records(2 * ROWS_PER_GROUP + 7, size=50)
    ref = stored(storage.parse_uri(str(tmp_path)), "s.parquet", write_shard(records, None))
    assert read_unit(Unit("parquet", (ref,))) == records
    for start, stop in [(0, 0), (0, 1), (15, 17), (16, 32), (5, 39), (38, 39), (39, 39)]:
        assert read_unit(Unit("parquet", (ref,), start=start, stop=stop)) == records[start:stop]
    with pytest.raises(ShardError, match="rows 30 to 40 are wanted, it has 39"):
        read_unit(Unit("parquet", (ref,), start=30, stop=40))


@pytest.mark.s3
def test_a_range_costs_the_bytes_of_its_row_groups(
    s3: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = shard_records(8 * ROWS_PER_GROUP)
    data = write_shard(records, None)
    ref = stored(s3.uri("ranges"), "s.parquet", data)
    group = len(data) / 8
    with FaultProxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        start = 3 * ROWS_PER_GROUP
        unit = Unit("parquet", (ref,), start=start, stop=start + ROWS_PER_GROUP)
        assert read_unit(unit) == records[start : start + ROWS_PER_GROUP]
        assert group < proxy.sent.total() < 1.1 * group + 2 * (8 << 10)  # and the footer, twice
        assert len(proxy.requests) <= 4


def test_one_flipped_bit_in_a_shard_is_an_error(tmp_path: Path) -> None:
    root = storage.parse_uri(str(tmp_path))
    records = shard_records(3)
    data = bytearray(write_shard(records, None))
    for flipped in (30_000, 50_000, len(data) - 300, len(data) - 2):
        data[flipped] ^= 4
        ref = stored(root, f"{flipped}.parquet", bytes(data))
        data[flipped] ^= 4
        with pytest.raises(ShardError, match=f"{flipped}.parquet"):
            read_unit(Unit("parquet", (ref,)))


def test_a_cut_shard_is_an_error(tmp_path: Path) -> None:
    root = storage.parse_uri(str(tmp_path))
    data = write_shard(shard_records(3, size=500), None)
    for length in range(0, len(data), len(data) // 12):
        ref = stored(root, f"{length}.parquet", data[:length])
        with pytest.raises(ShardError) as caught:
            read_unit(Unit("parquet", (ref,)))
        assert ref.uri in str(caught.value)
        assert "\n" not in str(caught.value)


def test_another_table_is_refused_by_its_columns(tmp_path: Path) -> None:
    root = storage.parse_uri(str(tmp_path))
    table = pa.table({"key": ["a"], "uri": ["b"], "etag": ["c"], "jpg": [b"d"]})
    file = io.BytesIO()
    pq.write_table(table, file)
    ref = stored(root, "other.parquet", file.getvalue())
    with pytest.raises(ShardError, match=r"\['height', 'width', 'image', 'label'\] are missing"):
        read_footer(ref)


@pytest.mark.s3
def test_a_shard_that_is_overwritten_while_it_is_read_is_noticed(s3: Seaweed) -> None:
    ref = stored(s3.uri("pinned"), "s.parquet", write_shard(shard_records(3), None))
    storage.replace(ref.uri, write_shard(shard_records(4), None))
    with pytest.raises(ChangedError, match=ref.uri):
        read_unit(Unit("parquet", (ref,)))


def test_raw_records_come_in_order_with_their_labels(tmp_path: Path) -> None:
    root = storage.parse_uri(str(tmp_path))
    images = [stored(root, f"{i}.jpg", b"image %d" % i) for i in range(30)]
    labels = [stored(root, f"{i}.png", b"label %d" % i) if i % 2 else None for i in range(30)]
    keys = tuple(f"key {i}" for i in range(30))
    unit = Unit("raw", tuple(images), keys=keys, labels=tuple(labels))
    assert read_unit(unit) == [
        Record(keys[i], images[i].uri, images[i].etag, b"image %d" % i, b"label %d" % i)
        if i % 2
        else Record(keys[i], images[i].uri, images[i].etag, b"image %d" % i)
        for i in range(30)
    ]


def test_a_raw_object_that_cannot_be_had_is_raised_or_recorded(tmp_path: Path) -> None:
    root = storage.parse_uri(str(tmp_path))
    good = stored(root, "good.jpg", b"good")
    gone = ObjectRef(storage.join(root, "gone.jpg"), "e", 3)
    changed = ObjectRef(stored(root, "changed.jpg", b"x").uri, "0-0", 1)
    huge = ObjectRef(stored(root, "huge.jpg", b"x").uri, "e", 1 << 40)
    unit = Unit("raw", (gone, good, changed, huge), keys=("gone", "good", "changed", "huge"))
    records = read_unit(unit, on_error="record")
    assert [(r.key, r.image, r.error and r.error[0]) for r in records] == [
        ("gone", b"", "missing"),
        ("good", b"good", None),
        ("changed", b"", "changed"),
        ("huge", b"", "too_large"),
    ]
    assert all(r.error is None or r.uri in r.error[1] for r in records)
    for ref, error in [(gone, NotFoundError), (changed, ChangedError), (huge, ImageError)]:
        with pytest.raises(error, match=ref.uri):
            read_unit(Unit("raw", (ref,), keys=("k",)))


@pytest.mark.s3
def test_a_failing_store_is_never_recorded_as_a_bad_image(
    s3: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = stored(s3.uri("raw"), "a.jpg", b"x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError):
        read_unit(Unit("raw", (ref,), keys=("a",)), on_error="record")
