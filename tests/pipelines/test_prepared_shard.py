from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines import images, storage
from pipelines.errors import ForeignObjectError, InputError, LabelError
from pipelines.prepared_shard import Receipt, check_record, make_shard
from pipelines.records import Record
from pipelines.schemas import SHARD, classes_of
from pipelines.shards import plan_shards, write_shard
from pipelines.sources import open_source
from pipelines.units import Unit, read_unit
from tests.support import made

GOOD = Record("a", "s3://d/a.jpg", "e", made.jpg(made.picture(0)), made.label_png(0))


def test_a_shard_holds_the_files_as_they_are_and_says_what_they_show() -> None:
    unreadable = Record("b/c", "s3://d/shard.tar", "e2", b"no image")
    data = write_shard([GOOD, unreadable], made.CLASSES, metadata={"x": "y"})
    table = pq.read_table(io.BytesIO(data))
    assert table.schema.equals(SHARD)
    assert classes_of(table.schema) == made.CLASSES
    assert table.schema.metadata[b"x"] == b"y"
    assert table.to_pylist() == [
        {
            "key": "a",
            "uri": "s3://d/a.jpg",
            "etag": "e",
            "height": 12,
            "width": 16,
            "image": {"bytes": GOOD.image, "path": "a.jpg"},
            "label": {"bytes": GOOD.label, "path": "a.png"},
        },
        {
            "key": "b/c",
            "uri": "s3://d/shard.tar",
            "etag": "e2",
            "height": 0,
            "width": 0,
            "image": {"bytes": b"no image", "path": "c"},
            "label": None,
        },
    ]


def test_the_same_records_make_the_same_bytes() -> None:
    assert write_shard([GOOD] * 40, made.CLASSES) == write_shard([GOOD] * 40, made.CLASSES)


def test_height_and_width_are_those_of_the_upright_image() -> None:
    exif = Image.Exif()
    exif[274] = 6
    file = io.BytesIO()
    Image.fromarray(made.picture(0, 10, 30)).save(file, "JPEG", exif=exif)
    table = pq.read_table(io.BytesIO(write_shard([Record("a", "u", "e", file.getvalue())], None)))
    assert (table["height"][0].as_py(), table["width"][0].as_py()) == (30, 10)


def test_plans_regroup_files_but_keep_shards_and_tars(tmp_path: Path) -> None:
    made.pairs(tmp_path / "pairs", 10)
    source = open_source(str(tmp_path / "pairs"), unit_records=3)
    plans = plan_shards(source, shard_bytes=1 << 20, shard_records=4)
    assert [plan.name for plan in plans] == [f"part-0000{i}-of-00003.parquet" for i in range(3)]
    assert [plan.unit.records for plan in plans] == [4, 4, 2]
    whole = [record for unit in source.units for record in read_unit(unit)]
    assert [record for plan in plans for record in read_unit(plan.unit)] == whole
    made.fill(tmp_path / "tars", {"a.tar": made.tar({}), "b.tar": made.tar({})})
    tars = open_source(str(tmp_path / "tars"))
    assert tuple(plan.unit for plan in plan_shards(tars, 1, 1)) == tars.units


def test_a_fingerprint_follows_content_and_classes_only(tmp_path: Path) -> None:
    made.pairs(tmp_path, 3)
    (plan,) = plan_shards(open_source(str(tmp_path)), 1 << 20, 100)
    (again,) = plan_shards(open_source(str(tmp_path), unit_records=1), 1 << 20, 100)
    assert plan.fingerprint(made.CLASSES) == again.fingerprint(made.CLASSES)
    assert plan.fingerprint(None) != plan.fingerprint(made.CLASSES)
    (tmp_path / "labels/001.png").write_bytes(made.label_png(77, 16))
    (changed,) = plan_shards(open_source(str(tmp_path)), 1 << 20, 100)
    assert changed.fingerprint(made.CLASSES) != plan.fingerprint(made.CLASSES)


def test_a_shard_is_made_once_and_then_recognised(tmp_path: Path) -> None:
    source = open_source(str(made.pairs(tmp_path / "in", 5)))
    root = storage.parse_uri(str(tmp_path / "out"))
    (plan,) = plan_shards(source, 1 << 20, 100)
    first = make_shard(plan, root, source.classes)
    ref = storage.stat(storage.join(root, plan.name))
    second = make_shard(plan, root, source.classes)
    assert (first.existing, second.existing) == (False, True)
    assert first.images == second.images
    assert first.bytes == second.bytes
    assert storage.stat(storage.join(root, plan.name)) == ref
    assert Receipt.from_json(first.to_json()) == first
    assert ref is not None
    originals = [record for unit in source.units for record in read_unit(unit)]
    assert read_unit(Unit("parquet", (ref,))) == originals


@pytest.mark.parametrize("there", [b"junk", write_shard([GOOD], None)])
def test_a_foreign_object_is_never_overwritten(tmp_path: Path, there: bytes) -> None:
    source = open_source(str(made.pairs(tmp_path / "in", 2)))
    root = storage.parse_uri(str(tmp_path / "out"))
    (plan,) = plan_shards(source, 1 << 20, 100)
    uri = storage.join(root, plan.name)
    storage.create(uri, there)
    with pytest.raises(ForeignObjectError, match=plan.name):
        make_shard(plan, root, source.classes)
    assert storage.read_bytes(uri) == there


def test_a_good_record_passes() -> None:
    check_record(GOOD, made.CLASSES)
    check_record(Record("a", "u", "e", b"anything"), None)


def wrong_label() -> bytes:
    ids = made.label(0)
    ids[3, 4:7] = 9
    return made.png(ids)


@pytest.mark.parametrize(
    ("image", "label", "error", "message"),
    [
        (GOOD.image, wrong_label(), LabelError, r"the label holds ids 9 \(3 pixels\)"),
        (GOOD.image, made.label_png(0, 8), LabelError, "the label is 8x16 .* 12x16"),
        (GOOD.image, made.png(made.picture(0)), LabelError, "its label cannot be read .*RGB"),
        (GOOD.image, b"", LabelError, r"its label cannot be read \(empty\)"),
        (GOOD.image, None, InputError, "has no label"),
        (GOOD.image[:-200], GOOD.label, InputError, r"cannot be read \(truncated\)"),
        (b"", GOOD.label, InputError, r"cannot be read \(empty\)"),
    ],
)
def test_labelled_data_that_cannot_be_trained_on_names_the_image(
    image: bytes, label: bytes | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        check_record(Record("some/key", "s3://d/x.jpg", "e", image, label), made.CLASSES)
    assert str(caught.value).startswith("image some/key (s3://d/x.jpg)")
    assert "\n" not in str(caught.value)


def test_labels_without_a_class_list_are_refused() -> None:
    with pytest.raises(InputError, match=r"nothing says what its ids mean; put a classes\.json"):
        check_record(GOOD, None)


@pytest.mark.shared_data
def test_every_real_label_passes_and_void_is_respected(shared_data: Path) -> None:
    for folder, void_id in [("camvid", 11), ("voc2012_subset", 255)]:
        source = open_source(str(shared_data / folder), split="val", unit_records=12)
        void = 0
        for record in read_unit(source.units[0]):
            check_record(record, source.classes)
            assert record.label is not None
            void += int(np.count_nonzero(images.decode_label(record.label) == void_id))
        assert void > 0
