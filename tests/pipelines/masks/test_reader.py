"""Readers see one published snapshot, whole and unchanging, with any tool that reads Parquet."""

from __future__ import annotations

import itertools
import pickle
import shutil
import threading
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.errors import ChangedError, InputError, NotFoundError, StoreError
from pipelines.masks import reader, snapshots
from pipelines.masks.reader import open_masks
from pipelines.schemas import MASKS, classes_of
from tests.support.mask_output import CLASSES, G1, G2, made_up, name_of, publish, write_part


@pytest.fixture
def output(tmp_path):
    return storage.parse_uri(str(tmp_path / "out"))


def _night(output, *parts, generation=G1, published=True):
    snapshot = snapshots.extend(output, generation, parts, "run")
    if published:
        publish(output, snapshot)
    return snapshot


def _folder(output, generation=G1):
    return storage.local_path(storage.join(output, "data", f"gen={generation}"))


def _keys(dataset):
    """Which rows a reader sees, and of which version of the input."""
    table = dataset.to_table(columns=["key", "etag"])
    return sorted(zip(*table.to_pydict().values(), strict=True))


def _rows(*units):
    """The same for units, each (number, version)."""
    return sorted(
        (f"{unit}/{record}.jpg", f"etag-{version}")
        for unit, version in units
        for record in range(3)
    )


def _check_read(output):
    parts = [write_part(output, unit) for unit in (3, 1, 2)]
    snapshot = _night(output, *parts)
    write_part(output, 9)  # of a night that still runs
    masks = open_masks(output)
    assert masks.schema == MASKS
    assert classes_of(masks.schema) == CLASSES
    assert masks.count_rows() == snapshot.records == 9
    pieces = (
        pq.read_table(
            pa.BufferReader(storage.read_bytes(storage.join(output, snapshot.file(part))))
        )
        for part in snapshot.parts
    )
    assert masks.to_table().equals(pa.concat_tables(pieces).cast(MASKS))
    errors = masks.to_table(columns=["key"], filter=ds.field("status") == "error")
    assert sorted(errors["key"].to_pylist()) == ["1/2.jpg", "2/2.jpg", "3/2.jpg"]
    assert open_masks(output, verify=True).to_table().equals(masks.to_table())
    return masks


def test_the_published_masks_are_the_rows_of_its_parts(output):
    _check_read(output)


@pytest.mark.s3
def test_the_published_masks_can_be_read_from_a_store_and_sent_without_secrets(s3):
    output = s3.uri()
    masks = _check_read(output)
    sent = pickle.dumps(masks)
    for secret in (s3.environment["AWS_SECRET_ACCESS_KEY"], s3.environment["AWS_ACCESS_KEY_ID"]):
        assert secret.encode() not in sent
    assert pickle.loads(sent).to_table().equals(masks.to_table())
    assert reader.files(output)[0] == f"{output}/data/gen={G1}/{name_of(1).file}"
    key = reader.files(output)[0].removeprefix(f"s3://{s3.bucket}/")
    s3.client().delete_object(Bucket=s3.bucket, Key=key)
    for verify in (False, True):
        with pytest.raises(NotFoundError, match="is gone"):
            open_masks(output, verify=verify)
    s3.client().put_object(Bucket=s3.bucket, Key=key, Body=b"junk")
    with pytest.raises(StoreError, match="cannot be read"):
        open_masks(output)
    with pytest.raises(NotFoundError, match="no-such-bucket"):
        open_masks("s3://no-such-bucket/masks")


def test_what_was_opened_stays_the_same_whatever_happens(output):
    _night(output, write_part(output, 1), write_part(output, 2))
    opened, before = open_masks(output), _rows((1, 1), (2, 1))
    write_part(output, 3)
    assert _keys(opened) == _keys(open_masks(output)) == before
    _night(output, write_part(output, 1, 2), write_part(output, 4))
    assert _keys(open_masks(output)) == _rows((1, 2), (2, 1), (4, 1))
    _night(output, *(write_part(output, unit, generation=G2) for unit in (1, 8)), generation=G2)
    assert _keys(open_masks(output)) == _rows((1, 1), (8, 1))
    assert _keys(opened) == before
    publish(output, snapshots.load(output, G1, 1))
    assert _keys(open_masks(output)) == before


def test_a_polling_reader_sees_published_snapshots_and_nothing_between(output):
    nights = [[(1, 1), (2, 1)], [(1, 1), (2, 2), (3, 1)], [(1, 2), (2, 2), (3, 1), (4, 1)]]
    allowed = [_rows(*night) for night in nights]
    _night(output, *(write_part(output, *unit) for unit in nights[0]))
    done = threading.Event()

    def work():
        for _ in range(4):
            for before, night in itertools.pairwise(nights):
                new = [unit for unit in night if unit not in before]
                for unit in new:
                    if not (_folder(output) / name_of(*unit).file).exists():
                        write_part(output, *unit)
                _night(output, *(snapshots.describe_part(_uri(output, unit)) for unit in new))
            publish(output, snapshots.load(output, G1, 1))
        done.set()

    seen = []
    worker = threading.Thread(target=work)
    worker.start()
    while not done.is_set():
        seen.append(_keys(open_masks(output)))
    worker.join()
    assert len(seen) > 5
    assert all(rows in allowed for rows in seen)


def _uri(output, unit):
    return storage.join(output, "data", f"gen={G1}", name_of(*unit).file)


def test_other_snapshots_are_opened_by_name(output):
    for unit in (1, 2, 3):
        _night(output, write_part(output, unit))
    publish(output, snapshots.load(output, G1, 2))
    _night(output, write_part(output, 7, generation=G2), generation=G2, published=False)
    assert _keys(open_masks(output)) == _rows((1, 1), (2, 1))
    assert _keys(open_masks(output, sequence=1)) == _rows((1, 1))
    assert _keys(open_masks(output, generation=G1)) == _rows((1, 1), (2, 1), (3, 1))
    assert _keys(open_masks(output, generation=G1, sequence=2)) == _rows((1, 1), (2, 1))
    assert _keys(open_masks(output, generation=G2)) == _rows((7, 1))
    with pytest.raises(NotFoundError, match="there are: 1, 2, 3"):
        open_masks(output, sequence=4)
    with pytest.raises(NotFoundError, match=f"some of: {G1}, {G2}"):
        open_masks(output, generation="0" * 16)


def test_with_nothing_published_the_error_says_what_there_is(output, tmp_path):
    with pytest.raises(NotFoundError, match="no folder"):
        open_masks(output)
    write_part(output, 1)
    with pytest.raises(NotFoundError, match=r"no snapshot.*can be read from .*/out/data/gen="):
        open_masks(output)
    _night(output, published=False)
    with pytest.raises(NotFoundError, match=rf"snapshot 1 of generation {G1}.*jobs/publish\.py"):
        open_masks(str(tmp_path / "out"))
    publish(output, snapshots.load(output, G1, 1))
    empty = open_masks(output, verify=True)
    assert (empty.schema, empty.count_rows()) == (MASKS, 0)


def test_a_folder_of_parts_is_read_by_its_snapshot_or_as_it_lies(output, tmp_path):
    first = [write_part(output, 1), write_part(output, 2)]
    for retry in (1, 2, 10):
        write_part(output, 1, 1, retry)
    folder = _folder(output)
    assert open_masks(str(folder)).count_rows() == 6
    assert [Path(file).name for file in reader.files(str(folder))] == [
        name_of(1, 1, 10).file,
        name_of(2).file,
    ]
    shutil.copytree(folder, tmp_path / "copy")
    write_part(output, 2, 5)
    with pytest.raises(InputError, match="two versions"):
        open_masks(str(folder))
    _night(output, *first, published=False)
    assert reader.files(str(folder)) == [str(folder / name_of(unit).file) for unit in (1, 2)]
    assert open_masks(str(tmp_path / "copy")).count_rows() == 6


def test_a_flipped_bit_is_an_error_for_a_reader_that_asked(output):
    part = write_part(output, 1)
    _night(output, part, write_part(output, 2))
    path = _folder(output) / part.name.file
    data = bytearray(path.read_bytes())
    data[data.index(b"IHDR") + 20] ^= 1
    path.write_bytes(data)
    assert open_masks(output).to_table().num_rows == 6
    with pytest.raises(ChangedError, match=part.sha256):
        open_masks(output, verify=True)
    # As it lies there is nothing to compare it with but the checksums in the file.
    shutil.rmtree(storage.local_path(storage.join(output, "_fcn")))
    unsnapped = open_masks(str(_folder(output)), verify=True)
    with pytest.raises(OSError, match=r"(?i)crc|checksum"):
        unsnapped.to_table()


def test_a_lost_part_is_named_and_a_copied_output_is_as_good(output, tmp_path):
    _night(output, write_part(output, 1), write_part(output, 2))
    shutil.copytree(tmp_path / "out", tmp_path / "copy", copy_function=shutil.copyfile)
    copy = open_masks(str(tmp_path / "copy"), verify=True)
    assert copy.to_table().equals(open_masks(output).to_table())
    (_folder(output) / name_of(1).file).unlink()
    for verify in (False, True):
        with pytest.raises(NotFoundError, match=f"{name_of(1).file} of snapshot 1 of .* is gone"):
            open_masks(output, verify=verify)


def test_a_snapshot_of_many_parts_opens_without_a_look_at_each(output, monkeypatch):
    parts = [write_part(output, 1), *(made_up(unit) for unit in range(2, 501))]
    _night(output, *parts)
    looks, stat = [], storage.stat

    def counted(uri):
        looks.append(uri)
        return stat(uri)

    monkeypatch.setattr(storage, "stat", counted)
    assert len(open_masks(output).files) == 500
    assert len(looks) < 5


@pytest.fixture
def plain(output):
    """A folder of parts, and its rows as a list."""
    _night(output, write_part(output, 1), write_part(output, 2))
    return _folder(output), open_masks(output).to_table().to_pylist()


def test_pandas_reads_the_folder_and_the_list_of_files(plain, output):
    folder, rows = plain
    for frame in (
        pd.read_parquet(folder),
        pd.read_parquet(reader.files(output), partitioning=None),
        open_masks(output).to_table().to_pandas(),
    ):
        assert list(frame.columns) == MASKS.names
        assert frame["key"].tolist() == [row["key"] for row in rows]
        assert [mask and mask["bytes"] for mask in frame["mask"]] == [
            row["mask"] and row["mask"]["bytes"] for row in rows
        ]


def test_duckdb_reads_the_folder_the_list_of_files_and_the_dataset(plain, output):
    import duckdb

    folder, rows = plain
    masks = open_masks(output)
    with duckdb.connect() as connection:
        for table, values in (
            ("read_parquet($1, hive_partitioning = false)", [f"{folder}/part-*.parquet"]),
            ("read_parquet($1, hive_partitioning = false)", [reader.files(output)]),
            ("masks", []),
        ):
            found = connection.sql(f"select * from {table} order by key", params=values)
            assert found.to_arrow_table().cast(masks.schema).to_pylist() == rows
        assert connection.execute("select sum(list_sum(class_pixels)) from masks").fetchone() == (
            sum(sum(row["class_pixels"] or []) for row in rows),
        )


def test_hugging_face_reads_the_folder_and_the_list_of_files_as_images(plain, output, tmp_path):
    import datasets
    from PIL import Image

    folder, rows = plain
    for where in ({"data_dir": str(folder)}, {"data_files": reader.files(output)}):
        found = datasets.load_dataset(
            "parquet", split="train", cache_dir=str(tmp_path / "cache"), **where
        )
        assert found["key"][:] == [row["key"] for row in rows]
        assert found.column_names == MASKS.names
        image = found[0]["mask"]
        assert isinstance(image, Image.Image)
        assert (image.size, image.mode) == ((3, 2), "P")
        assert found[2]["mask"] is None
