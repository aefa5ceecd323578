"""A plan of several units begins with a small one, and nothing else about plans changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.masks.first_unit import FIRST_RECORDS, small_first
from pipelines.masks.generation import Generation, part_name
from pipelines.masks.plans import Plan, load_plan, plan_units
from pipelines.shards import ROWS_PER_GROUP
from pipelines.sources import Source
from pipelines.storage import ObjectRef
from pipelines.units import Unit

GENERATION = Generation(model="m", network="n", precision="fp32", max_pixels=1)


def _files(count: int) -> Source:
    refs = tuple(ObjectRef(f"s3://a/{index:03d}.jpg", "e", 10) for index in range(count))
    depths = tuple(ObjectRef(f"s3://a/{index:03d}.png", "e", 1) for index in range(count))
    keys = tuple(f"{index:03d}.jpg" for index in range(count))
    unit = Unit("raw", refs, keys=keys, planes=(("depth", depths),))
    return Source("s3://a", "archive", None, (unit,), planes=("depth",))


def _shard(*cuts: tuple[int, int], name: str = "s", etag: str = "e1") -> tuple[Unit, ...]:
    ref = ObjectRef(f"file:///{name}.parquet", etag, 9)
    return tuple(Unit("parquet", (ref,), start=start, stop=stop) for start, stop in cuts)


def _shards(*units: Unit) -> Source:
    return Source("file:///", "shards", None, units)


def _planned(source: Source, output: str) -> Plan:
    return plan_units(source, output, GENERATION, unit_records=40)


def _ranges(plan: Plan) -> list[tuple[int, int | None]]:
    return [(unit.start, unit.stop) for unit in plan.units]


def test_the_small_unit_is_a_row_group_of_our_shards() -> None:
    assert FIRST_RECORDS == ROWS_PER_GROUP == 16


@pytest.mark.parametrize(
    ("files", "sizes"),
    [(5, [5]), (40, [40]), (41, [16, 24, 1]), (100, [16, 24, 40, 20])],
)
def test_files_of_several_units_begin_with_a_small_one(tmp_path, files, sizes):
    source = _files(files)
    plan = plan_units(source, tmp_path.as_uri(), GENERATION, ["depth"], unit_records=40)
    assert [len(unit.keys) for unit in plan.units] == sizes
    # Every record once, in order, with its own plane; whole names, and the same ones when reread.
    (whole,) = source.units
    assert sum((unit.keys for unit in plan.units), ()) == whole.keys
    assert sum((unit.objects for unit in plan.units), ()) == whole.objects
    depths = (dict(unit.planes)["depth"] for unit in plan.units)
    assert sum(depths, ()) == dict(whole.planes)["depth"]
    assert len({part_name(unit) for unit in plan.units}) == len(sizes)
    assert load_plan(tmp_path.as_uri(), GENERATION.id).units == plan.units


def test_small_units_are_not_cut_and_other_units_are_not_touched():
    small = _shard((0, 16), (16, 80))
    assert small_first(small, ()) == small
    units = (*_shard((0, 64), (64, 128)), *_shard((0, 64), name="t"))
    assert small_first(units, ()) == (*_shard((0, 16), (16, 64)), *units[1:])


def test_a_tar_is_not_cut_and_the_keys_of_a_single_file_are():
    tars = tuple(Unit("tar", (ObjectRef(f"s3://a/{name}.tar", "e", 9),)) for name in "ab")
    assert small_first(tars, ()) == tars
    keys = tuple(f"{index:04d}" for index in range(50))
    file = Unit("nyud-mat", (ObjectRef("s3://a/labeled.mat", "e", 9),), keys=keys)
    units = (replace(file, keys=keys[:40]), replace(file, keys=keys[40:]))
    parts = small_first(units, ())
    assert [unit.keys for unit in parts] == [keys[:16], keys[16:40], keys[40:]]


def test_what_an_earlier_version_planned_stays_and_only_what_is_added_begins_small(
    tmp_path, monkeypatch
):
    output = tmp_path.as_uri()
    with monkeypatch.context() as patched:
        patched.setattr("pipelines.masks.grouping.small_first", lambda units, planned: units)
        old = _planned(_files(90), output)
    assert [len(unit.keys) for unit in old.units] == [40, 40, 10]
    assert _planned(_files(90), output) == old
    new = _planned(_files(140), output)
    assert new.units[:3] == old.units
    assert [len(unit.keys) for unit in new.units[3:]] == [16, 24, 10]


def test_a_shard_that_changed_is_cut_as_it_comes_and_back_as_it_was(tmp_path):
    output = tmp_path.as_uri()
    first = _planned(_shards(*_shard((0, 40), (40, 80))), output)
    assert _ranges(first) == [(0, 16), (16, 40), (40, 80)]
    changed = _shards(*_shard((0, 40), (40, 80), etag="e2"))
    assert _ranges(_planned(changed, output)) == [(0, 40), (40, 80)]
    back = _planned(_shards(*_shard((0, 40), (40, 80))), output)
    assert back.units == first.units


def test_one_shard_that_changed_leaves_the_units_of_the_others(tmp_path):
    output = tmp_path.as_uri()
    others = _shard((0, 40), (40, 80))
    first = _planned(_shards(*others, *_shard((0, 40), (40, 60), name="t")), output)
    again = _planned(_shards(*others, *_shard((0, 40), (40, 60), name="t", etag="e2")), output)
    assert again.units[:3] == first.units[:3]
    assert _ranges(again)[3:] == _ranges(first)[3:] == [(0, 40), (40, 60)]
