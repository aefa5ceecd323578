from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import shard_footers, storage
from pipelines.cutting import cut, fitting
from pipelines.errors import InputError, NotFoundError, ShardError
from pipelines.parquet_records import Footer, read_footer
from pipelines.records import Record
from pipelines.shards import write_shard
from pipelines.sources import open_source
from pipelines.storage import ObjectRef
from pipelines.units import read_unit
from tests.support import made
from tests.support.seaweed import Seaweed


def shard(count: int, first: int = 0, **options: object) -> bytes:
    records = [Record(f"k{first + i}", f"u{i}", "e", b"x" * 100) for i in range(count)]
    return write_shard(records, options.get("classes"))  # type: ignore[arg-type]


def test_shards_are_cut_into_ranges_of_whole_row_groups(tmp_path: Path) -> None:
    made.fill(
        tmp_path,
        {"part-0.parquet": shard(100), "part-1.parquet": shard(20, 100), "manifest.parquet": b""},
    )
    source = open_source(str(tmp_path), unit_records=64)
    assert source.layout == "shards"
    assert [(unit.start, unit.stop) for unit in source.units] == [(0, 64), (64, 100), (0, 20)]
    read = [record.key for unit in source.units for record in read_unit(unit)]
    assert read == [f"k{index}" for index in range(120)]
    assert source.records == 120


def test_a_limit_in_bytes_cuts_too(tmp_path: Path) -> None:
    made.fill(tmp_path, {"a.parquet": shard(100)})
    assert len(open_source(str(tmp_path), unit_bytes=1).units) == 7
    made.fill(tmp_path / "raw", {f"{i}.jpg": b"x" * 10 for i in range(7)})
    units = open_source(str(tmp_path / "raw"), unit_bytes=25).units
    assert [unit.records for unit in units] == [2, 2, 2, 1]


@pytest.mark.parametrize("limit", [{"unit_records": 0}, {"unit_records": -1}, {"unit_bytes": 0}])
def test_a_limit_below_one_is_refused(tmp_path: Path, limit: dict[str, int]) -> None:
    made.fill(tmp_path, {"a.jpg": b"x"})
    with pytest.raises(InputError, match=r"unit_\w+ must be at least 1, got"):
        open_source(str(tmp_path), **limit)  # type: ignore[arg-type]


def test_the_cut_follows_from_the_input_alone(tmp_path: Path) -> None:
    made.fill(tmp_path, {f"{i:03d}.jpg": b"x" for i in range(20)})
    assert open_source(str(tmp_path)) == open_source(f"file://{tmp_path}/")


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9))),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_a_cut_is_complete_within_its_limits_and_greedy(
    items: list[tuple[int, int]], most: int, room: int
) -> None:
    records, sizes = [item[0] for item in items], [item[1] for item in items]
    ranges = list(cut(records, sizes, most, room))
    assert [i for start, stop in ranges for i in range(start, stop)] == list(range(len(items)))
    for start, stop in ranges:
        fits = sum(records[start:stop]) <= most and sum(sizes[start:stop]) <= room
        assert fits or stop == start + 1
        if stop < len(items):
            assert sum(records[start : stop + 1]) > most or sum(sizes[start : stop + 1]) > room


@pytest.mark.parametrize(
    ("records", "kilobytes", "most"),
    [
        (1, 100, 128),
        (1000, 1, 128),
        (10_000, 1, 156),  # 64 units and a little more
        (100_000, 1, 512),
        (10_000_000, 1, 512),
        (10_000_000, 100, 163),  # 16 MB of photographs
        (10_000_000, 5000, 128),
    ],
)
def test_units_grow_with_the_archive_where_its_images_are_small(
    records: int, kilobytes: int, most: int
) -> None:
    assert fitting(records, records * kilobytes << 10) == most
    assert fitting(0, 0) == 128


def test_by_default_a_unit_of_a_job_has_as_many_images_as_fit(tmp_path: Path) -> None:
    made.fill(tmp_path, {f"{i}.parquet": shard(4096, 4096 * i) for i in range(3)})
    many = open_source(str(tmp_path), unit_records=None)
    assert [unit.records for unit in many.units] == ([192] * 21 + [64]) * 3
    few = open_source(str(tmp_path / "0.parquet"), unit_records=None)
    assert [unit.records for unit in few.units] == [128] * 32
    made.fill(tmp_path / "raw", {f"{i:03d}.jpg": b"x" for i in range(300)})
    raw = open_source(str(tmp_path / "raw"), unit_records=None)
    assert [unit.records for unit in raw.units] == [128, 128, 44]


def test_a_tar_is_a_unit(tmp_path: Path) -> None:
    made.fill(tmp_path, {f"{i}.tar": made.tar({f"{i}.jpg": b"x"}) for i in range(3)})
    source = open_source(str(tmp_path))
    assert source.layout == "tar"
    assert [record.key for unit in source.units for record in read_unit(unit)] == ["0", "1", "2"]
    assert source.records is None


def test_a_shard_with_a_broken_footer_is_refused_or_a_unit_by_wish(tmp_path: Path) -> None:
    whole = shard(20)
    made.fill(tmp_path, {"a.parquet": whole[:-1], "b.parquet": whole, "c.parquet": b""})
    (tmp_path / "d.parquet").symlink_to("nowhere")
    with pytest.raises(ShardError, match=r"a\.parquet: the Parquet file is damaged"):
        open_source(str(tmp_path))
    source = open_source(str(tmp_path), on_bad_shard="unit")
    named = [(unit.objects[0].uri[-9], unit.start, unit.stop) for unit in source.units]
    assert named == [("a", 0, None), ("b", 0, 20), ("c", 0, None), ("d", 0, None)]
    assert source.records is None
    for unit in (source.units[0], *source.units[2:]):
        with pytest.raises(InputError, match=unit.objects[0].uri):
            read_unit(unit)
    (tmp_path / "b.parquet").unlink()
    with pytest.raises(ShardError, match=r"a\.parquet: the Parquet file is damaged"):
        open_source(str(tmp_path), on_bad_shard="unit")


def test_a_bit_that_flips_on_the_way_does_not_decide_how_a_shard_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.fill(tmp_path, {"a.parquet": shard(20)})
    whole = open_source(str(tmp_path), on_bad_shard="unit", unit_records=16)
    broken = [True]

    def flipping(ref: ObjectRef) -> Footer:
        if broken.pop() if broken else False:
            raise ShardError(f"{ref.uri}: the Parquet file is damaged")
        return read_footer(ref)

    monkeypatch.setattr(shard_footers, "read_footer", flipping)
    assert open_source(str(tmp_path), on_bad_shard="unit", unit_records=16) == whole


def test_one_shard_alone_can_be_named(tmp_path: Path) -> None:
    made.fill(tmp_path, {"a.parquet": shard(3), "b.parquet": shard(4), "c.tar": made.tar({})})
    assert open_source(f"{tmp_path}/b.parquet").records == 4
    assert open_source(f"{tmp_path}/c.tar").layout == "tar"


def test_a_class_list_is_found_beside_the_shards_or_in_them(tmp_path: Path) -> None:
    made.fill(tmp_path, {"a.parquet": shard(3, classes=made.CLASSES)})
    assert open_source(str(tmp_path)).classes == made.CLASSES
    made.fill(tmp_path, {"b.parquet": shard(3)})
    with pytest.raises(InputError, match=r"different class lists; .*classes\.json"):
        open_source(str(tmp_path))
    made.fill(tmp_path, {"classes.json": b'{"names": ["one"]}'})
    classes = open_source(str(tmp_path)).classes
    assert classes is not None
    assert classes.names == ("one",)


def test_a_mixture_is_refused_with_what_was_seen_and_can_be_decided(tmp_path: Path) -> None:
    made.fill(tmp_path, {"a.parquet": shard(3), "b.tar": made.tar({}), "c.jpg": b"", "d.jpg": b""})
    with pytest.raises(InputError, match=r"shards and tar and images .*2 \.jpg, 1 \.parquet"):
        open_source(str(tmp_path))
    assert open_source(str(tmp_path), layout="shards").records == 3
    assert open_source(str(tmp_path), layout="archive").records == 2


def test_nothing_is_refused_with_what_was_seen(tmp_path: Path) -> None:
    made.fill(tmp_path, {"notes.txt": b"", "weights.npz": b""})
    with pytest.raises(InputError, match=r"holds no images.*1 \.txt, 1 \.npz|1 \.npz, 1 \.txt"):
        open_source(str(tmp_path))
    with pytest.raises(NotFoundError, match=r"holds no \*\.parquet"):
        open_source(str(tmp_path), layout="shards")
    with pytest.raises(NotFoundError, match="there is no folder"):
        open_source(str(tmp_path / "absent"))
    with pytest.raises(InputError, match="layout 'coco' is not one of auto, shards"):
        open_source(str(tmp_path), layout="coco")  # type: ignore[arg-type]


def test_a_split_of_what_has_none_is_refused(tmp_path: Path) -> None:
    made.fill(tmp_path, {"a.parquet": shard(3)})
    with pytest.raises(InputError, match="layout shards, which has no splits; split is 'val'"):
        open_source(str(tmp_path), split="val")
    made.fill(tmp_path / "raw", {"a.jpg": b""})
    with pytest.raises(InputError, match="archive without splits"):
        open_source(str(tmp_path / "raw"), split="val")


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    made.fill(tmp_path, {"a.parquet": shard(3), "b.parquet": shard(3)[:-5]})
    with pytest.raises(ShardError, match=r"b\.parquet: the Parquet file is damaged"):
        open_source(str(tmp_path))


@pytest.mark.s3
def test_a_source_in_s3_is_the_same_as_on_disk(s3: Seaweed, tmp_path: Path) -> None:
    made.fill(made.pairs(tmp_path, 5), {"classes.txt": b"unused"})
    root = s3.uri("pairs")
    for ref in storage.list_objects(storage.parse_uri(str(tmp_path))):
        key = storage.relative(ref.uri, storage.parse_uri(str(tmp_path)))
        storage.create(storage.join(root, key), storage.read_bytes(ref.uri))
    there, here = open_source(root), open_source(str(tmp_path))
    assert (there.layout, there.classes) == (here.layout, here.classes)
    contents = [
        [(r.key, r.image, r.label) for unit in source.units for r in read_unit(unit)]
        for source in (there, here)
    ]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 5


@pytest.mark.s3
def test_an_empty_prefix_is_not_found(s3: Seaweed) -> None:
    with pytest.raises(NotFoundError, match="nothing at all"):
        open_source(s3.uri("empty"))
