"""Snapshots lose nothing, whoever writes at the same time, and say what they hold."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import storage
from pipelines.errors import ForeignObjectError, InputError, NotFoundError, StoreError
from pipelines.masks import snapshots
from pipelines.masks.snapshot import Snapshot, merge
from tests.support.mask_output import G1, G2, made_up, name_of, write_part

TRIES_AT_UNITS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=6)


@pytest.fixture
def output(tmp_path):
    return storage.parse_uri(str(tmp_path / "out"))


def _numbers(output):
    return snapshots.numbers_by_generation(output)


def test_a_snapshot_reads_back_and_sums_its_parts(output):
    parts = [
        made_up(
            unit,
            rows=10 + unit,
            errors={"empty": unit, "store": 1} if unit % 2 else {},
            transient=unit % 2,
            class_pixels=(unit, 10, 2**40),
        )
        for unit in range(7)
    ]
    made = snapshots.extend(output, G1, reversed(parts), "run-1")
    assert made == snapshots.load(output, G1, 1) == snapshots.latest(output, G1)
    assert made.parts == tuple(parts)
    assert made.records == sum(range(10, 17))
    assert made.errors == {"empty": 1 + 3 + 5, "store": 3}
    assert made.error_rows == 12
    assert made.transient == 3
    assert made.class_pixels == (21, 70, 7 * 2**40)
    assert snapshots.load_summary(output, G1, 1) == made.summary
    assert (made.summary.units, made.summary.records, made.summary.error_rows) == (7, 91, 12)


def test_a_snapshot_is_json_that_names_every_file_below_the_output(output):
    made = snapshots.extend(output, G1, [write_part(output, unit) for unit in (1, 2)], "run-1")
    value = json.loads(storage.read_bytes(snapshots.snapshot_uri(output, G1, 1)))
    for line, part in zip(value["parts"], made.parts, strict=True):
        data = storage.read_bytes(storage.join(output, line["file"]))
        assert line["sha256"] == part.sha256 == hashlib.sha256(data).hexdigest()


@given(TRIES_AT_UNITS, TRIES_AT_UNITS)
def test_the_order_of_merges_does_not_matter_and_every_part_is_kept(one, other):
    a, b = ([made_up(unit, 1, retry) for unit, retry in tries] for tries in (one, other))
    results = []
    for first, second in ((a, b), (b, a)):
        middle = Snapshot(generation=G1, sequence=1, parts=(), created_by="r", replaced=())
        for sequence, added in enumerate((first, second), 1):
            parts, replaced = merge(middle, added)
            middle = Snapshot(
                generation=G1, sequence=sequence, parts=parts, created_by="r", replaced=replaced
            )
        results.append((middle.parts, middle.replaced))
    assert results[0] == results[1]
    everything = {*one, *other}
    last = {unit: max(retry for u, retry in everything if u == unit) for unit, _ in everything}
    current = {name_of(unit, 1, retry) for unit, retry in last.items()}
    assert {part.name for part in results[0][0]} == current
    assert {part.name for part in results[0][1]} == {
        name_of(unit, 1, retry) for unit, retry in everything
    } - current


def test_a_changed_unit_takes_the_old_parts_place_and_can_change_back(output):
    versions = {version: made_up(5, version) for version in (1, 2)}
    for sequence, (now, before) in enumerate([(1, None), (2, 1), (1, 2)], 1):
        made = snapshots.extend(output, G1, [made_up(1), versions[now]], "r")
        assert made.sequence == sequence
        assert made.parts == (made_up(1), versions[now])
        assert made.replaced == ((versions[before],) if before else ())
    with pytest.raises(InputError, match="two versions"):
        snapshots.extend(output, G1, versions.values(), "r")
    assert _numbers(output) == {G1: [1, 2, 3]}


def test_dropped_units_leave_when_others_enter(output):
    snapshots.extend(output, G1, [made_up(unit) for unit in range(3)], "r")
    made = snapshots.extend(
        output, G1, [made_up(7)], "r", drop={name_of(0).unit, name_of(2).unit, name_of(9).unit}
    )
    assert made.parts == (made_up(1), made_up(7))
    assert made.replaced == (made_up(0), made_up(2))


def test_nothing_new_writes_nothing(output):
    parts = [made_up(unit) for unit in range(3)]
    first = snapshots.extend(output, G1, parts, "run-1")
    assert snapshots.extend(output, G1, parts[1:], "run-2") == first
    assert snapshots.extend(output, G1, [], "run-2") == first
    assert _numbers(output) == {G1: [1]}
    assert snapshots.latest(output, G2) is None
    assert snapshots.extend(output, G2, [], "run-3").parts == ()
    assert _numbers(output) == {G1: [1], G2: [1]}


def _race(output, writers, each):
    start = threading.Barrier(writers)

    def write(writer):
        start.wait()
        for index in range(each):
            snapshots.extend(output, G1, [made_up(writer * each + index)], f"run-{writer}")

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    made = [snapshots.load(output, G1, number) for number in _numbers(output)[G1]]
    assert [one.sequence for one in made] == list(range(1, writers * each + 1))
    for before, after in itertools.pairwise(made):
        assert len(after.units - before.units) == 1
        assert before.units < after.units
    assert made[-1].parts == tuple(made_up(unit) for unit in range(writers * each))
    assert Counter(one.created_by for one in made) == {f"run-{w}": each for w in range(writers)}


def test_racing_writers_lose_nothing_on_a_disk(output):
    _race(output, writers=4, each=5)


@pytest.mark.s3
def test_racing_writers_lose_nothing_in_a_store(s3):
    _race(s3.uri(), writers=2, each=4)


def test_a_change_is_made_anew_to_the_snapshot_of_whoever_was_faster(output):
    seen = []

    def change(before):
        seen.append(before.sequence if before else 0)
        if len(seen) == 1:
            snapshots.extend(output, G1, [made_up(1)], "faster")
        # What it looks up: unit 2 counts only while unit 1 does not.
        return ([made_up(3)], ()) if before and made_up(1) in before.parts else ([made_up(2)], ())

    made = snapshots.extend_by(output, G1, change, "slower")
    assert seen == [0, 1]
    assert (made.sequence, made.parts) == (2, (made_up(1), made_up(3)))


@pytest.mark.parametrize(
    "junk", [b"", b"junk", b"[]", b"{}", b'{"format": 99}', b'{"format": 1, "sequence": 2}']
)
def test_what_is_no_snapshot_is_named_and_left_alone(output, junk):
    snapshots.extend(output, G1, [made_up(1)], "r")
    uri = snapshots.snapshot_uri(output, G1, 2)
    storage.create(uri, junk)
    for look in (
        lambda: snapshots.latest(output, G1),
        lambda: snapshots.load_summary(output, G1, 2),
        lambda: snapshots.extend(output, G1, [made_up(2)], "r"),
    ):
        with pytest.raises(ForeignObjectError, match="left untouched") as caught:
            look()
        assert uri in str(caught.value)
    assert storage.read_bytes(uri) == junk
    assert snapshots.load(output, G1, 1).parts == (made_up(1),)


def test_a_snapshot_under_another_number_or_generation_is_refused(output):
    snapshots.extend(output, G1, [made_up(1)], "r")
    data = storage.read_bytes(snapshots.snapshot_uri(output, G1, 1))
    for generation, number in ((G1, 2), (G2, 1)):
        storage.create(snapshots.snapshot_uri(output, generation, number), data)
        for look in (snapshots.load, snapshots.load_summary):
            with pytest.raises(ForeignObjectError, match=f"number 1 of {G1}"):
                look(output, generation, number)


def test_a_missing_snapshot_says_which_there_are(output):
    for unit in (1, 2):
        snapshots.extend(output, G1, [made_up(unit)], "r")
    for look in (snapshots.load, snapshots.load_summary):
        with pytest.raises(NotFoundError, match=r"no snapshot 7 of .*there are: 1, 2"):
            look(output, G1, 7)


def test_a_part_is_described_by_its_bytes(output):
    part = write_part(output, 5, rows=300)
    uri = storage.join(output, "data", f"gen={G1}", part.name.file)
    data = storage.read_bytes(uri)
    rows = pq.read_table(io.BytesIO(data)).to_pylist()
    assert part.name == name_of(5)
    assert part.sha256 == hashlib.sha256(data).hexdigest()
    ref = storage.stat(uri)
    assert ref is not None
    assert (part.size, part.etag) == (len(data), ref.etag)
    assert part.rows == len(rows) == 300
    assert part.errors == {"store": 1}
    assert part.transient == 1
    pixels = [row["class_pixels"] for row in rows if row["class_pixels"]]
    assert part.class_pixels == tuple(map(sum, zip(*pixels, strict=True)))
    assert snapshots.describe_part(ref) == part


def test_a_damaged_or_foreign_part_is_not_described(output):
    part = write_part(output, 5, rows=3)
    folder = storage.join(output, "data", f"gen={G1}")
    data = bytearray(storage.read_bytes(storage.join(folder, part.name.file)))
    elsewhere = storage.join(folder, name_of(6).file)
    storage.create(elsewhere, bytes(data))
    with pytest.raises(ForeignObjectError, match="does not fit its name"):
        snapshots.describe_part(elsewhere)
    data[data.index(b"IHDR") + 20] ^= 1
    storage.create(storage.join(output, f"gen={G1}", part.name.file), bytes(data))
    with pytest.raises(StoreError, match="does not read back"):
        snapshots.describe_part(storage.join(output, f"gen={G1}", part.name.file))
    sink = io.BytesIO()
    pq.write_table(pa.table({"other": [1]}), sink)
    storage.create(storage.join(folder, name_of(7).file), sink.getvalue())
    with pytest.raises(ForeignObjectError, match="not a part"):
        snapshots.describe_part(storage.join(folder, name_of(7).file))
    with pytest.raises(NotFoundError):
        snapshots.describe_part(storage.join(folder, name_of(8).file))
