"""The Delta table is the published snapshot: the same files, no more, whatever came before."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable

from pipelines import storage
from pipelines.errors import ForeignObjectError, InputError, NotFoundError, StoreError
from pipelines.masks import delta, reader, snapshots
from pipelines.masks.delta import export_delta
from pipelines.masks.reader import open_masks
from tests.support.mask_output import G1, G2, name_of, publish, write_part


@pytest.fixture
def output(tmp_path):
    return storage.parse_uri(str(tmp_path / "out"))


def _night(output, *parts, generation=G1):
    snapshot = snapshots.extend(output, generation, parts, "run")
    publish(output, snapshot)
    return snapshot


def _table(output, version=None):
    return DeltaTable(str(storage.local_path(output)), version=version)


def _rows(table):
    return table.to_pyarrow_table().sort_by("key").to_pylist()


def _published(output):
    return open_masks(output).to_table().sort_by("key").to_pylist()


def _files(output):
    """Every Parquet file that lies there, with its bytes."""
    root = storage.local_path(output)
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*.parquet")}


def test_the_table_follows_what_is_published_and_copies_nothing(output):
    with pytest.raises(NotFoundError, match=r"no folder|nothing is published"):
        export_delta(output)
    old = write_part(output, 1)
    _night(output, old, write_part(output, 2))
    first = export_delta(output)
    assert (first.version, first.files, first.added, first.removed) == (0, 2, 2, 0)
    assert _rows(_table(output)) == _published(output)

    again = export_delta(output)
    assert (again.version, again.files, again.added, again.removed) == (0, 2, 0, 0)

    _night(output, write_part(output, 1, 2), write_part(output, 3), write_part(output, 2, 1, 1))
    changed = export_delta(output)
    assert (changed.version, changed.files, changed.added, changed.removed) == (1, 3, 3, 2)
    assert _rows(_table(output)) == _published(output)

    _night(output, *(write_part(output, unit, generation=G2) for unit in (1, 2)), generation=G2)
    other = export_delta(output)
    assert (other.generation, other.files, other.added, other.removed) == (G2, 2, 2, 3)
    assert _rows(_table(output)) == _published(output)

    publish(output, snapshots.load(output, G1, 1))
    before = _files(output)
    back = export_delta(output)
    assert (back.sequence, back.files, back.added, back.removed) == (1, 2, 2, 2)
    assert _rows(_table(output)) == _published(output) == _rows(_table(output, version=0))
    assert _files(output) == before
    assert _table(output).transaction_version(f"fcn:{G1}") == 1
    assert _table(output).transaction_version(f"fcn:{G2}") == 1


def test_the_log_disturbs_no_reader_of_plain_files(output):
    parts = [write_part(output, unit) for unit in (1, 2)]
    _night(output, *parts)
    folder = storage.join(output, "data", f"gen={G1}")
    root = str(storage.local_path(output))
    before = (
        list(storage.list_objects(output)),
        list(storage.list_objects(folder)),
        ds.dataset(root, partitioning="hive").files,
        pd.read_parquet(root)["key"].tolist(),
        reader.files(folder),
    )
    export_delta(output)
    _table(output).create_checkpoint()  # which is a Parquet file
    assert before == (
        list(storage.list_objects(output)),
        list(storage.list_objects(folder)),
        ds.dataset(root, partitioning="hive").files,
        pd.read_parquet(root)["key"].tolist(),
        reader.files(folder),
    )
    assert export_delta(output).added == 0


def test_a_count_of_rows_needs_no_file(output):
    _night(output, write_part(output, 1, rows=5), write_part(output, 2, rows=7))
    export_delta(output)
    actions = pa.table(_table(output).get_add_actions(flatten=True))
    assert sum(actions["num_records"].to_pylist()) == 12


@pytest.mark.s3
def test_a_store_has_the_table_beside_the_same_objects(s3, monkeypatch):
    output = s3.uri()
    _night(output, write_part(output, 1), write_part(output, 2))
    assert export_delta(output).version == 0
    _night(output, write_part(output, 1, 2))
    assert export_delta(output).version == 1
    table = DeltaTable(output, storage_options={"AWS_ALLOW_HTTP": "true"})
    assert _rows(table) == _published(output)
    assert sorted(table.file_uris()) == reader.files(output)


@pytest.mark.parametrize("first_export", [True, False])
def test_a_lost_answer_is_read_back_and_not_repeated(output, monkeypatch, first_export):
    if not first_export:
        _night(output, write_part(output, 1))
        export_delta(output)
    _night(output, write_part(output, 2))
    commit = delta._commit

    def lost(*arguments):
        commit(*arguments)
        raise OSError("connection reset")

    monkeypatch.setattr(delta, "_commit", lost)
    monkeypatch.setattr("time.sleep", lambda _: None)
    done = export_delta(output)
    assert (done.version, done.added) == (0 if first_export else 1, 1)
    assert _rows(_table(output)) == _published(output)
    assert _table(output).version() == done.version


def test_trouble_that_stays_is_a_store_error_that_quotes_it(output, monkeypatch):
    _night(output, write_part(output, 1))

    def broken(*arguments):
        raise OSError("disk on fire")

    monkeypatch.setattr(delta, "_commit", broken)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(StoreError, match="disk on fire"):
        export_delta(output)


def test_an_export_that_was_overtaken_does_not_undo_the_newer_one(output, monkeypatch):
    _night(output, write_part(output, 1))
    export_delta(output)
    _night(output, write_part(output, 1, 2))
    commit = delta._commit

    def overtaken(*arguments):
        monkeypatch.setattr(delta, "_commit", commit)
        _night(output, write_part(output, 1, 3), write_part(output, 2))
        assert export_delta(output).version == 1
        commit(*arguments)

    monkeypatch.setattr(delta, "_commit", overtaken)
    monkeypatch.setattr("time.sleep", lambda _: None)
    done = export_delta(output)
    assert (done.version, done.sequence) == (1, 3)
    assert _rows(_table(output)) == _published(output)


def test_racing_exports_make_one_table_without_doubled_files(output):
    for night in range(3):
        _night(output, *(write_part(output, 10 * night + unit) for unit in range(3)))
        start = threading.Barrier(3)

        def export(start=start):
            start.wait()
            return export_delta(output)

        with ThreadPoolExecutor(3) as pool:
            done = [running.result() for running in [pool.submit(export) for _ in range(3)]]
        assert {one.version for one in done} == {night}
        assert _rows(_table(output)) == _published(output)


def test_what_others_do_to_the_table_harms_no_file_and_is_put_right(output):
    _night(output, *(write_part(output, unit) for unit in range(3)))
    export_delta(output)
    ours = _files(output)
    stray = write_part(output, 7)  # of a night that still runs
    _table(output).optimize.compact()
    _table(output).delete("key = '1/0.jpg'")
    folder = storage.local_path(storage.join(output, "data", f"gen={G1}"))
    for path in folder.iterdir():
        os.utime(path, (0, 0))  # as if they were older than a table usually keeps files
    assert _table(output).vacuum(full=True, dry_run=False) == []
    with pytest.raises(Exception, match="retention"):
        _table(output).vacuum(retention_hours=24 * 365, full=True, dry_run=False)
    assert len(list(folder.iterdir())) == 4  # nothing of others lies among the parts
    export_delta(output)
    assert _rows(_table(output)) == _published(output)
    now = _files(output)
    assert {path: now[path] for path in ours} == ours
    _night(output, stray)
    export_delta(output)
    assert _rows(_table(output)) == _published(output)


def test_a_table_of_other_columns_is_refused_and_left_alone(output):
    from deltalake import write_deltalake

    _night(output, write_part(output, 1))
    write_deltalake(str(storage.local_path(output)), pa.table({"other": [1]}))
    with pytest.raises(ForeignObjectError, match="_delta_log away"):
        export_delta(output)
    assert _table(output).version() == 0


def test_an_empty_snapshot_is_an_empty_table(output):
    _night(output)
    assert export_delta(output).files == 0
    assert _rows(_table(output)) == []
    _night(output, write_part(output, 1))
    assert export_delta(output).added == 1
    assert _rows(_table(output)) == _published(output)


def test_without_the_package_the_error_says_what_to_install(output, monkeypatch):
    monkeypatch.setattr(delta, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[delta\]'"):
        export_delta(output)


def test_the_table_says_which_snapshot_it_shows(output):
    snapshot = _night(output, write_part(output, 1))
    export_delta(output)
    log = storage.local_path(output) / "_delta_log" / f"{0:020d}.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    assert [one["txn"] for one in actions if "txn" in one] == [
        {"appId": f"fcn:{G1}", "version": snapshot.sequence}
    ]
    assert [one["add"]["path"] for one in actions if "add" in one] == [
        f"data/gen={G1}/{name_of(1).file}"
    ]
