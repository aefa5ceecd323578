"""Input keeps the unit that it was first planned in, whatever comes later."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipelines import storage
from pipelines.errors import ForeignObjectError, InputError
from pipelines.label_rules import LabelRule
from pipelines.masks import plan_files
from pipelines.masks.generation import Generation, part_name
from pipelines.masks.plans import load_plan, plan_units
from pipelines.sources import Source, open_source
from pipelines.storage import ObjectRef
from pipelines.units import Unit

GENERATION = Generation(model="m", network="n", precision="fp32", max_pixels=1)
NEWER = replace(GENERATION, model="newer")


def _images(folder, names):
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(folder / f"{name}.png")


def _plan(folder, output, unit_records=3, generation=GENERATION, **options):
    source = open_source(str(folder), layout="archive", unit_records=unit_records)
    output = output.as_uri()
    return source, plan_units(source, output, generation, unit_records=unit_records, **options)


def _files(names, *, etag="e", size=10, planes=()):
    """An archive of files, in one unit, whatever the limits."""
    refs = tuple(ObjectRef(f"s3://a/{name}.jpg", etag, size) for name in names)
    further = tuple(
        (plane, tuple(ObjectRef(f"s3://a/{name}.{plane}", etag, size) for name in names))
        for plane in planes
    )
    unit = Unit("raw", refs, keys=tuple(f"{name}.jpg" for name in names), planes=further)
    return Source("s3://a", "archive", None, (unit,), planes=tuple(planes))


def _shards(*cuts, etag="e1"):
    """A source of one shard, cut into ranges."""
    shard = ObjectRef("file:///s.parquet", etag, 9)
    units = [Unit("parquet", (shard,), start=a, stop=b) for a, b in cuts]
    return Source("file:///s.parquet", "shards", None, tuple(units))


def _keys(plan):
    return [unit.keys for unit in plan.units]


def test_new_images_form_new_units_and_leave_the_old_ones_alone(tmp_path):
    archive, output = tmp_path / "archive", tmp_path / "out"
    _images(archive, ["b", "d", "f", "h"])
    _, before = _plan(archive, output)
    _images(archive, ["a", "c", "e"])  # they sort between the old ones
    _, after = _plan(archive, output, unit_records=2)
    assert _keys(before) == [("b.png", "d.png", "f.png"), ("h.png",)]
    assert after.units[:2] == before.units
    assert _keys(after)[2:] == [("a.png", "c.png"), ("e.png",)]
    assert _plan(archive, output)[1] == after


@pytest.mark.parametrize(("records", "size", "expected"), [(4, 1 << 20, 4), (99, 25, 2), (2, 5, 1)])
def test_new_files_fill_whole_units_wherever_they_fall_between_old_ones(
    tmp_path, records, size, expected
):
    # The oracle is the greedy cut of the new files alone: the limit in records or in bytes.
    output = tmp_path.as_uri()
    names = [f"{number:03d}" for number in range(60)]
    plan_units(_files(names[::3]), output, GENERATION, unit_records=7)
    plan = plan_units(_files(names), output, GENERATION, unit_records=records, unit_bytes=size)
    sizes = [len(keys) for keys in _keys(plan)[3:]]
    assert sum(sizes) == 40
    assert sizes == [expected] * (40 // expected)


def test_runs_that_plan_at_once_agree(tmp_path):
    archive, output = tmp_path / "archive", tmp_path / "out"
    _images(archive, list("abcdefgh"))
    with ThreadPoolExecutor(4) as pool:
        sizes = [1, 2, 3, 4]
        plans = list(pool.map(lambda size: _plan(archive, output, size)[1], sizes))
    assert all(plan == plans[0] for plan in plans)


def test_runs_that_list_other_input_and_plan_at_once_plan_every_image_once(tmp_path):
    names = [f"{number:02d}" for number in range(40)]
    views = [names[start : start + 25] for start in (0, 5, 10, 15)]
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(
            lambda view: plan_units(
                _files(view), tmp_path.as_uri(), GENERATION, unit_records=len(view) // 4
            ),
            views,
        )
        for view, plan in zip(views, found, strict=True):
            assert {f"{name}.jpg" for name in view} <= {key for keys in _keys(plan) for key in keys}
    plan = load_plan(tmp_path.as_uri(), GENERATION.id)
    assert sorted(key for keys in _keys(plan) for key in keys) == [f"{name}.jpg" for name in names]


def test_a_planner_that_loses_its_number_takes_over_what_won(tmp_path, monkeypatch):
    output, create = tmp_path.as_uri(), storage.create
    rival = plan_files.encode(_files("bc").units)

    def create_late(uri, data):
        if uri.endswith("00000.plan"):
            assert create(uri, rival)  # another run was faster
        return create(uri, data)

    monkeypatch.setattr(storage, "create", create_late)
    plan = plan_units(_files("abcd"), output, GENERATION, unit_records=9)
    assert _keys(plan) == [("b.jpg", "c.jpg"), ("a.jpg", "d.jpg")]
    assert load_plan(output, GENERATION.id) == plan
    assert plan.number == 2


def test_a_dry_plan_is_the_plan_to_come_and_writes_nothing(tmp_path):
    archive, output = tmp_path / "archive", tmp_path / "out"
    _images(archive, list("abcde"))
    _, dry = _plan(archive, output, dry=True)
    assert not output.exists()
    assert _plan(archive, output)[1] == dry
    before = sorted(output.rglob("*"))
    _images(archive, list("fg"))
    _, dry = _plan(archive, output, dry=True)
    assert len(dry.units) == 3
    assert sorted(output.rglob("*")) == before
    assert _plan(archive, output)[1] == dry
    _images(tmp_path / "other", ["x"])
    with pytest.raises(InputError, match="another --output"):
        _plan(tmp_path / "other", output, dry=True)


def test_a_newer_generation_takes_over_the_cut_of_the_published_one(tmp_path):
    archive, output = tmp_path / "archive", tmp_path / "out"
    _images(archive, ["b", "d"])
    _plan(archive, output)
    _images(archive, ["a", "c"])
    _, old = _plan(archive, output)
    (archive / "a.png").unlink()
    _images(archive, ["e"])
    _, new = _plan(archive, output, generation=NEWER, like=GENERATION.id)
    assert new.units[:2] == old.units
    assert _keys(new) == [("b.png", "d.png"), ("a.png", "c.png"), ("e.png",)]
    assert _plan(archive, output, generation=NEWER)[1] == new
    _, unlike = _plan(archive, output, generation=replace(NEWER, model="x"))
    assert _keys(unlike) == [("b.png", "c.png", "d.png"), ("e.png",)]


def test_a_newer_generation_cuts_a_shard_anew_that_changed_since(tmp_path):
    output = tmp_path.as_uri()
    old = plan_units(_shards((0, 4), (4, 8)), output, GENERATION, unit_records=4)
    source = _shards((0, 6), (6, 12), etag="e2")
    new = plan_units(source, output, NEWER, unit_records=6, like=GENERATION.id)
    assert new.units == source.units
    assert new.superseded == old.units  # so that nobody waits for masks of the old cut


@pytest.mark.parametrize("planes", [(), ("geo",), ("geo", "depth")])
def test_the_cut_of_a_generation_with_other_planes_is_not_taken_over(tmp_path, planes):
    output = tmp_path.as_uri()
    source = _files("abcd", planes=("depth", "geo"))
    plan_units(source, output, GENERATION, ["geo"], unit_records=3)
    new = plan_units(source, output, NEWER, planes, unit_records=2, like=GENERATION.id)
    assert [len(keys) for keys in _keys(new)] == ([3, 1] if planes == ("geo",) else [2, 2])
    assert all({name for name, _ in unit.planes} == set(planes) for unit in new.units)


def test_another_inputs_cut_is_not_taken_over(tmp_path):
    plan_units(_files("ab"), tmp_path.as_uri(), GENERATION, unit_records=2)
    other = replace(_files("ab"), uri="s3://a/b")
    plan = plan_units(other, tmp_path.as_uri(), NEWER, unit_records=1, like=GENERATION.id)
    assert len(plan.units) == 2


def test_another_unit_size_does_not_cut_a_planned_shard_anew(tmp_path):
    output = tmp_path.as_uri()
    first = plan_units(_shards((0, 4), (4, 8)), output, GENERATION, unit_records=4)
    assert plan_units(_shards((0, 8)), output, GENERATION, unit_records=8) == first


def test_a_version_of_a_shard_has_one_cut_however_often_it_comes_back(tmp_path):
    output = tmp_path.as_uri()
    first = plan_units(_shards((0, 4), (4, 8)), output, GENERATION, unit_records=4)
    plan_units(_shards((0, 9), etag="e2"), output, GENERATION, unit_records=9)
    back = plan_units(_shards((0, 8)), output, GENERATION, unit_records=8)
    assert back.units == first.units


def test_two_images_of_one_key_and_two_keys_of_one_image_are_two_records_each(tmp_path):
    refs = [ObjectRef(f"s3://a/{name}", "e", 1) for name in "xyz"]
    pairs = [("k", refs[0]), ("k", refs[1]), ("l", refs[1]), ("m", refs[2])]
    for count in range(1, len(pairs) + 1):
        keys, objects = zip(*pairs[:count], strict=True)
        source = Source("s3://a", "archive", None, (Unit("raw", objects, keys=keys),))
        plan = plan_units(source, tmp_path.as_uri(), GENERATION, unit_records=5)
        records = [
            pair for unit in plan.units for pair in zip(unit.keys, unit.objects, strict=True)
        ]
        assert records == pairs[:count]


def test_other_input_needs_another_output(tmp_path):
    archive, output = tmp_path / "archive", tmp_path / "out"
    _images(archive, ["a"])
    _images(archive / "b", ["c"])
    _plan(archive, output)
    with pytest.raises(InputError, match=r"archive/b.*another --output"):
        _plan(archive / "b", output)


def test_no_name_and_no_byte_of_a_plan_comes_from_the_clock(tmp_path, monkeypatch):
    archive = tmp_path / "archive"
    _images(archive, list("abcde"))

    def files(output):
        _plan(archive, output)
        return {path.relative_to(output): path.read_bytes() for path in output.rglob("*.*")}

    today = files(tmp_path / "today")
    for name in ("time", "time_ns"):
        real = getattr(time, name)
        monkeypatch.setattr(time, name, lambda real=real: real() + 86_400 * 10**9)
    assert files(tmp_path / "tomorrow") == today
    assert len(today) == 2


UNITS = {
    "raw": _files("abc").units,
    "planes": _files("abc", planes=("hha", "geo")).units,
    "range": _shards((0, 4), (4, 8)).units,
    "tar": (Unit("tar", (ObjectRef("s3://a/ü b.tar", "e-2", 1 << 40),)),),
    "open": (Unit("parquet", (ObjectRef("s3://a/b.parquet", "", 0),)),),
    "nyud-mat": (
        Unit(
            *("nyud-mat", (ObjectRef("s3://a/b.mat", "e", 5),)),
            keys=("0001", "0002"),
            rules=(("label", LabelRule(member=("S",), table=bytes([255, 0, 1]))),),
        ),
    ),
}


@pytest.mark.parametrize("name", [*UNITS, "mixed"])
def test_a_stored_plan_reads_back(name, monkeypatch):
    monkeypatch.setattr(plan_files, "OBJECTS_PER_GROUP", 4)  # several groups
    units = [unit for kind in UNITS for unit in UNITS[kind]] if name == "mixed" else UNITS[name]
    assert tuple(plan_files.decode(plan_files.encode(units), "uri")) == tuple(units)


def test_a_plan_with_any_flipped_bit_or_cut_is_refused(tmp_path):
    source = _files([f"{number:03d}" for number in range(50)])
    plan_units(source, tmp_path.as_uri(), GENERATION, unit_records=9)
    (path,) = tmp_path.rglob("*.plan")
    whole = path.read_bytes()
    flipped = [
        whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]
        for place in range(0, len(whole), 3)
    ]
    for damaged in (b"", b"junk", whole[:-9], whole[:100], whole[:40], whole + b"\n", *flipped):
        with pytest.raises(ForeignObjectError, match=r"its\.uri.*put its copy back"):
            list(plan_files.decode(damaged, "its.uri"))
    path.write_bytes(flipped[-1])
    with pytest.raises(ForeignObjectError, match=path.as_uri()):
        plan_units(source, tmp_path.as_uri(), GENERATION, unit_records=9)


def test_a_plan_that_is_missing_among_others_stops_the_run(tmp_path):
    for count in (1, 2, 3):
        plan_units(_files("abc"[:count]), tmp_path.as_uri(), GENERATION, unit_records=1)
    middle = next(tmp_path.rglob("00001.plan"))
    middle.unlink()
    with pytest.raises(ForeignObjectError, match=r"00001\.plan is missing"):
        plan_units(_files("abcd"), tmp_path.as_uri(), GENERATION, unit_records=1)


def test_a_plan_names_units_as_the_source_does(tmp_path):
    source = _files("abc", planes=("geo",))
    (unit,) = plan_units(source, tmp_path.as_uri(), GENERATION, ["geo"], unit_records=3).units
    (read,) = load_plan(tmp_path.as_uri(), GENERATION.id).units
    assert part_name(read) == part_name(unit) == part_name(source.units[0])
