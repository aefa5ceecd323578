"""Preparing on a Ray cluster, to a real S3 server and to a plain folder by the same code."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipelines import ray_data, storage
from pipelines.errors import ClusterError, InputError, LabelError, NotFoundError
from pipelines.ingest import labelled_rows, pairs_of
from pipelines.prepare import Prepared, _make_all, prepare
from pipelines.schemas import MANIFEST
from pipelines.sources import Source, open_source
from pipelines.units import read_unit
from tests.support import made, published
from tests.support.seaweed import Seaweed

pytestmark = [pytest.mark.ray, pytest.mark.s3, pytest.mark.usefixtures("ray_session")]


def contents(source: Source) -> list[tuple[str, str, bytes, bytes | None]]:
    records = [record for unit in source.units for record in read_unit(unit)]
    return [(record.key, record.uri, record.image, record.label) for record in records]


def snapshot(root: str) -> list[storage.ObjectRef]:
    return list(storage.list_objects(root))


@pytest.fixture(params=["folder", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path, s3: Seaweed) -> str:
    return str(tmp_path / "out" / "shards") if request.param == "folder" else s3.uri("shards")


def test_records_in_are_rows_out_and_a_second_run_does_nothing(output: str, tmp_path: Path) -> None:
    source = open_source(str(made.pairs(tmp_path / "in", 23)))
    lines: list[tuple[int, int | None, str]] = []
    done = prepare(source, output, shard_records=5, on_progress=lambda *line: lines.append(line))
    assert (done.records, done.shards, done.existing) == (23, 5, 0)
    assert sorted(line[0] for line in lines) == [line[0] for line in lines]
    assert lines[-1][:2] == (23, 23)

    made_of = snapshot(done.uri)
    names = [storage.relative(ref.uri, done.uri) for ref in made_of]
    parts = [f"part-{index:05d}-of-00005.parquet" for index in range(5)]
    assert names == ["classes.json", "manifest.parquet", *parts]
    assert done.bytes == sum(ref.size for ref in made_of[2:])

    prepared = open_source(output)
    assert (prepared.layout, prepared.classes) == ("shards", made.CLASSES)
    assert contents(prepared) == contents(source)

    manifest = pq.read_table(io.BytesIO(storage.read_bytes(made_of[1].uri)))
    assert manifest.schema.equals(MANIFEST)
    objects = {ref.uri: ref for unit in source.units for ref in unit.objects}
    for index, row in enumerate(manifest.to_pylist()):
        ref = objects[row["uri"]]
        assert row["key"] == f"{index:03d}"
        assert (row["etag"], row["bytes"]) == (ref.etag, ref.size)
        assert (row["shard"], row["row"]) == (parts[index // 5], index % 5)
    assert manifest.num_rows == 23

    lines.clear()
    again = prepare(source, output, shard_records=5, on_progress=lambda *line: lines.append(line))
    assert again == Prepared(**{**vars(done), "existing": 5})
    assert snapshot(done.uri) == made_of
    assert len(lines) == 1
    assert "nothing to do" in lines[0][2]

    made.pairs(tmp_path / "in", 24)
    with pytest.raises(InputError, match="choose another output") as caught:
        prepare(open_source(str(tmp_path / "in")), output, shard_records=5)
    assert "\n" not in str(caught.value)
    assert snapshot(done.uri) == made_of


def test_a_run_that_died_is_finished_by_the_next(output: str, tmp_path: Path) -> None:
    source = open_source(str(made.pairs(tmp_path / "in", 6)))
    root = storage.parse_uri(output)
    whole = prepare(source, str(tmp_path / "other"), shard_records=2)
    for name in ("part-00001-of-00003.parquet", "classes.json"):
        data = storage.read_bytes(storage.join(whole.uri, name))
        storage.create(storage.join(root, name), data)
    before = storage.stat(storage.join(root, "part-00001-of-00003.parquet"))
    finished = prepare(source, output, shard_records=2)
    assert (finished.records, finished.shards, finished.existing) == (6, 3, 1)
    assert storage.stat(storage.join(root, "part-00001-of-00003.parquet")) == before
    assert contents(open_source(output)) == contents(source)


def test_a_changed_input_of_the_same_shape_is_refused(output: str, tmp_path: Path) -> None:
    folder = made.pairs(tmp_path / "in", 4)
    root = prepare(open_source(str(folder)), output).uri
    before = snapshot(root)
    (folder / "labels/002.png").write_bytes(made.label_png(99))
    with pytest.raises(InputError, match=r"manifest\.parquet belongs to shards of other input"):
        prepare(open_source(str(folder)), output)
    assert snapshot(root) == before


def test_a_wrong_label_ends_in_one_line_that_names_image_and_value(
    output: str, tmp_path: Path
) -> None:
    folder = made.pairs(tmp_path / "in", 8)
    ids = made.label(5, 16)
    ids[0, 1] = 200
    (folder / "labels/005.png").write_bytes(made.png(ids))
    with pytest.raises(LabelError) as caught:
        prepare(open_source(str(folder)), output, shard_records=2)
    assert str(caught.value) == (
        f"image 005 (file://{folder}/images/005.jpg): the label holds ids 200 (1 pixels); "
        "allowed are 0 to 2 and 255 for void"
    )
    names = {ref.uri.rpartition("/")[2] for ref in snapshot(storage.parse_uri(output))}
    assert "manifest.parquet" not in names
    (folder / "labels/005.png").write_bytes(made.label_png(5, 16))
    assert prepare(open_source(str(folder)), output, shard_records=2).records == 8


def test_an_archive_keeps_what_cannot_be_read(output: str, tmp_path: Path) -> None:
    files = {f"day/{i}.jpg": made.jpg(made.picture(i)) for i in range(3)}
    files |= {"day/cut.jpg": files["day/1.jpg"][:90], "day/empty.jpg": b"", "notes.txt": b"x"}
    source = open_source(str(made.fill(tmp_path / "in", files)))
    done = prepare(source, output)
    assert (done.records, done.classes) == (5, None)
    prepared = open_source(output)
    assert prepared.classes is None
    assert contents(prepared) == contents(source)
    table = pq.read_table(io.BytesIO(storage.read_bytes(prepared.units[0].objects[0].uri)))
    sizes = dict(zip(table["key"].to_pylist(), table["height"].to_pylist(), strict=True))
    assert sizes["day/0.jpg"] == 12
    assert sizes["day/empty.jpg"] == 0
    assert "classes.json" not in {ref.uri.rpartition("/")[2] for ref in snapshot(done.uri)}


def test_tars_become_shards(output: str, tmp_path: Path) -> None:
    files = {
        "classes.json": json.dumps(made.CLASSES.to_dict()).encode(),
        "a.tar": made.tar({"x.jpg": made.jpg(made.picture(0)), "x.png": made.label_png(0)}),
        "b.tar": made.tar({"y.jpg": made.jpg(made.picture(1)), "y.seg.png": made.label_png(1)}),
    }
    source = open_source(str(made.fill(tmp_path / "in", files)))
    assert prepare(source, output).records == 2
    assert contents(open_source(output)) == contents(source)


@pytest.mark.parametrize("name", ["nyud", "nyud-mat", "siftflow"])
def test_planes_and_second_labels_pass_through_the_cluster(
    name: str, output: str, tmp_path: Path
) -> None:
    expected = published.SETS[name](tmp_path / "in")
    source = open_source(str(tmp_path / "in"), split=expected.split, unit_records=1)
    done = prepare(source, output, shard_records=1)
    assert (done.records, done.shards) == (2, 2)
    again = prepare(source, output, shard_records=1)
    assert again.existing == 2
    prepared = open_source(output)
    assert (prepared.classes, prepared.tasks) == (source.classes, source.tasks)
    assert prepared.planes == source.planes
    (root,) = {unit.objects[0].uri.rpartition("/")[0] for unit in prepared.units}
    assert open_source(f"{root}/part-00001-of-00002.parquet").tasks == source.tasks
    rows = labelled_rows(prepared)
    pairs = [
        pair
        for batch in rows.iter_batches(batch_size=None, batch_format="pyarrow")
        for pair in pairs_of(batch)
    ]
    assert {pair.key for pair in pairs} == set(expected.images)
    for pair in pairs:
        np.testing.assert_array_equal(pair.label, expected.labels[pair.key])
        assert set(pair.planes) == set(expected.planes[pair.key])
        for plane, content in expected.planes[pair.key].items():
            np.testing.assert_array_equal(pair.planes[plane], content)
    with pytest.raises(InputError, match=r"has no plane 'heat', which is wanted; it has \["):
        labelled_rows(prepared, planes=("heat",))


def test_an_image_that_goes_away_is_named_by_the_driver(tmp_path: Path) -> None:
    folder = made.pairs(tmp_path / "in", 3)
    source = open_source(str(folder))
    (folder / "images/001.jpg").unlink()
    with pytest.raises(NotFoundError, match=r"cannot read .*images/001\.jpg: there is no such"):
        prepare(source, str(tmp_path / "out"))


def test_other_data_at_the_output_is_left_alone(tmp_path: Path) -> None:
    source = open_source(str(made.pairs(tmp_path / "in", 3)))
    made.fill(tmp_path / "out", {"holiday.jpg": b"x"})
    with pytest.raises(InputError, match=r"other data files, such as holiday\.jpg"):
        prepare(source, str(tmp_path / "out"))
    with pytest.raises(InputError, match="lies inside the input"):
        prepare(source, str(tmp_path / "in" / "shards"))


def test_nothing_to_prepare_is_said(tmp_path: Path) -> None:
    empty = Source("s3://data/x", "shards", None, ())
    with pytest.raises(InputError, match="s3://data/x holds no image"):
        prepare(empty, str(tmp_path))


@pytest.mark.parametrize("limit", [{"shard_bytes": 0}, {"shard_records": 0}])
def test_a_shard_that_may_hold_nothing_is_refused(tmp_path: Path, limit: dict[str, int]) -> None:
    source = open_source(str(made.pairs(tmp_path / "in", 3)))
    with pytest.raises(InputError, match="at least 1 byte and 1 record"):
        prepare(source, str(tmp_path / "out"), **limit)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_each_row_is_a_block_and_settings_fail_loudly() -> None:
    settings = ray_data.context()
    assert settings.max_errored_blocks == 0
    assert not settings.enable_progress_bars
    assert settings.execution_no_progress_timeout_s == ray_data.NO_PROGRESS_SECONDS
    dataset = ray_data.one_row_per_block([{"unit": str(index)} for index in range(7)])
    sizes = [
        batch.num_rows for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow")
    ]
    assert sizes == [1] * 7


def test_a_defect_in_a_worker_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    class Broken:
        name = "part-00000-of-00001.parquet"
        unit = type("Unit", (), {"to_json": staticmethod(lambda: "no JSON")})

    with pytest.raises(ClusterError, match="Ray could not make part-00000") as caught:
        list(_make_all([Broken()], str(tmp_path), None))  # type: ignore[list-item]
    assert "\n" not in str(caught.value)
    assert "JSONDecodeError" in str(caught.value)
