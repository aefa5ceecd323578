"""Whole nights over Parquet shards of which some have footers that cannot be read.

Row 18 of docs/failures.md. No Ray: see `support/nights.py`.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow.parquet as pq
import pytest

from fcn_model import ClassList
from pipelines.errors import IncompleteError
from pipelines.records import Record
from pipelines.shards import write_shard
from tests.support.made import picture, png
from tests.support.nights import World, expected, mask
from tests.support.tiny import save_checkpoint

ROWS = 20
"""Of a shard: two row groups, which are two units here."""


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "good"
    save_checkpoint(folder, seed=1)
    return folder


@pytest.fixture
def world(place, good, stage):
    return World(place, good)


def shard(name, seed=0, classes=None):
    images = [png(picture(seed + index % 2)) for index in range(ROWS)]
    records = [Record(f"{name}{n:02}", f"u{n}", "e", image) for n, image in enumerate(images)]
    return write_shard(records, classes)


def keys(*names):
    return {f"{name}{number:02}" for name in names for number in range(ROWS)}


def of_other_columns(data):
    sink = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(data)).drop_columns(["etag"]), sink)
    return sink.getvalue()


@pytest.mark.parametrize(
    "damaged",
    [lambda data: data[:-9], lambda _: b"", lambda _: b"PAR1xxxxPAR1", of_other_columns],
    ids=["cut", "empty", "rubbish", "columns"],
)
def test_a_shard_without_a_footer_is_a_unit_that_fails_until_it_is_put_right(world, stage, damaged):
    for name in "abc":
        world.put(f"{name}.parquet", shard(name))
    world.put("a.parquet", damaged(shard("a")))
    for night in (1, 2, 3):
        stage.tried.clear()
        with pytest.raises(
            IncompleteError, match=r"^1 of 5 units could not be done: parquet .*/a\.parquet#0-: .*"
        ) as told:
            world.night()
        assert len(stage.tried) == (5 if night == 1 else 1)
        assert set(world.rows()) == keys("b", "c")
        assert world.wrong() == {"lost": 1, "missing": 1}
    assert "parked" in str(told.value)
    stage.tried.clear()
    with pytest.raises(IncompleteError, match=r"parked.*a\.parquet"):
        world.night()
    assert stage.tried == []
    world.put("a.parquet", shard("a"))
    assert world.night().complete
    assert [name.rpartition("/")[2] for name in stage.tried] == [
        "a.parquet#0-16",
        "a.parquet#16-20",
    ]
    assert set(world.rows()) == keys("a", "b", "c")
    assert world.wrong() == {}


def test_a_shard_that_loses_its_footer_keeps_its_masks_as_changed_input_does(world, stage):
    for name in "ab":
        world.put(f"{name}.parquet", shard(name))
    assert world.night().complete
    before = world.rows()
    world.put("a.parquet", shard("a")[:-9])
    for options, why in (
        ({}, r"changed .*a\.parquet#0-"),
        ({"replace_changed": True}, r"1 of 3 units could not be done: .*a\.parquet#0-: "),
    ):
        stage.tried.clear()
        with pytest.raises(IncompleteError, match=why):
            world.night(**options)
        assert len(stage.tried) == len(options)
        assert world.rows() == before
        assert set(world.wrong()) == {"outdated"}
    world.put("a.parquet", shard("a", seed=5))
    with pytest.raises(IncompleteError, match="changed"):
        world.night()
    assert world.rows() == before
    assert world.night(replace_changed=True).complete
    rows = world.rows()
    assert set(rows) == keys("a", "b")
    assert np.array_equal(mask(rows["a00"]), expected(world.checkpoint, 5))
    assert set(world.wrong()) == {"stray"}


def test_a_shard_that_was_whole_again_before_its_unit_was_worked_on_stands_once(world, stage):
    for name in "ab":
        world.put(f"{name}.parquet", shard(name))
    world.put("a.parquet", shard("a")[:-9])
    source = world.source()
    world.put("a.parquet", shard("a", seed=3))
    with pytest.raises(IncompleteError, match=r"a\.parquet#0-: .*Changed"):
        world.night(source)
    assert world.night().complete
    assert set(world.rows()) == keys("a", "b")
    assert world.wrong() == {}


def test_shards_of_other_classes_are_segmented_all_the_same(world):
    world.put("a.parquet", shard("a", classes=ClassList(names=("one", "two"))))
    world.put("b.parquet", shard("b", classes=ClassList(names=("three",))))
    assert world.source().classes is None
    assert world.night().complete
    assert set(world.rows()) == keys("a", "b")
    assert world.wrong() == {}
