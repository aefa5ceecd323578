"""A unit that fails night after night is left alone in the end; a run counts once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from pipelines.errors import ForeignObjectError
from pipelines.masks.generation import Generation, PartName
from pipelines.masks.parked import failures, last_reason, record_failure

GENERATION = Generation(model="m", network="n", precision="fp32", max_pixels=1)
NAME = PartName("0" * 16, "a" * 16)
REUPLOADED = PartName("0" * 16, "b" * 16)
OTHER = PartName("1" * 16, "a" * 16)


def test_failing_runs_are_counted_by_unit_and_version(tmp_path):
    output = tmp_path.as_uri()
    assert failures(output, GENERATION) == {}
    events = [(NAME, "1"), (OTHER, "1"), (NAME, "2"), (REUPLOADED, "3"), (NAME, "4")]
    numbers = [record_failure(output, GENERATION, name, "why", run) for name, run in events]
    assert numbers == [1, 1, 2, 1, 3]
    assert failures(output, GENERATION) == {
        (NAME.unit, NAME.version): 3,
        (OTHER.unit, OTHER.version): 1,
        (REUPLOADED.unit, REUPLOADED.version): 1,
    }
    another = Generation(model="n", network="n", precision="fp32", max_pixels=1)
    assert failures(output, another) == {}


def test_a_run_counts_once_and_runs_at_once_count_each(tmp_path):
    output = tmp_path.as_uri()
    runs = [f"run {number % 5}" for number in range(20)]
    with ThreadPoolExecutor(4) as pool:
        numbers = list(
            pool.map(lambda run: record_failure(output, GENERATION, NAME, "why", run), runs)
        )
    assert failures(output, GENERATION) == {(NAME.unit, NAME.version): 5}
    assert len(set(zip(runs, numbers, strict=True))) == 5  # a run has one number, and that alone
    assert set(numbers) == {1, 2, 3, 4, 5}


def test_the_last_reason_is_kept_and_a_retry_fails_as_its_version_does(tmp_path):
    output = tmp_path.as_uri()
    record_failure(output, GENERATION, NAME, "first", "1")
    retry = PartName(NAME.unit, NAME.version, 2)
    assert record_failure(output, GENERATION, retry, "second " + "x" * 9999, "2") == 2
    assert last_reason(output, GENERATION, NAME, 2).startswith("second xxx")
    assert all(path.stat().st_size < 2000 for path in tmp_path.rglob("*.json"))


def test_what_is_not_a_record_of_a_failure_is_neither_counted_nor_overwritten(tmp_path):
    folder = tmp_path / "_fcn" / "failed" / GENERATION.id
    folder.mkdir(parents=True)
    (folder / f"{NAME.unit}-{NAME.version}-1.txt").write_text("note")
    (folder / f"{NAME.unit}-{NAME.version}-0.json").write_text("{}")
    assert failures(tmp_path.as_uri(), GENERATION) == {}
    (folder / f"{NAME.unit}-{NAME.version}-1.json").write_text("[]")
    with pytest.raises(ForeignObjectError, match=r"-1\.json is no record of a failure.*untouched"):
        record_failure(tmp_path.as_uri(), GENERATION, NAME, "why", "1")
    assert (folder / f"{NAME.unit}-{NAME.version}-1.json").read_text() == "[]"
