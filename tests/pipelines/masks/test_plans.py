"""Input keeps the unit that it was first planned in, whatever comes later."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipelines.errors import InputError
from pipelines.masks.generation import Generation, part_name
from pipelines.masks.plans import plan_units, sort_out
from pipelines.sources import Source, open_source
from pipelines.storage import ObjectRef
from pipelines.units import Unit

GENERATION = Generation(model="m", network="n", precision="fp32", max_pixels=1)


def _images(folder, names):
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(folder / f"{name}.png")


def _plan(folder, output, unit_records=3):
    source = open_source(str(folder), layout="archive", unit_records=unit_records)
    return source, plan_units(source, output.as_uri(), GENERATION)


def _shards(tmp_path, *cuts, etag="e1"):
    """A source of one shard, cut into ranges."""
    shard = ObjectRef("file:///s.parquet", etag, 9)
    units = [Unit("parquet", (shard,), start=a, stop=b) for a, b in cuts]
    return Source("file:///s.parquet", "shards", None, tuple(units))


def _parts(*units):
    names = [part_name(unit) for unit in units]
    return {
        name.unit: {other.version for other in names if other.unit == name.unit} for name in names
    }


def test_new_images_form_new_units_and_leave_the_old_ones_alone(tmp_path):
    archive, output = tmp_path / "archive", tmp_path / "out"
    _images(archive, ["b", "d", "f", "h"])
    _, before = _plan(archive, output)
    _images(archive, ["a", "c", "e"])  # they sort between the old ones
    _, after = _plan(archive, output, unit_records=2)
    assert [unit.keys for unit in before.units] == [("b.png", "d.png", "f.png"), ("h.png",)]
    assert after.units[:2] == before.units
    everything = [key for unit in after.units for key in unit.keys]
    assert sorted(everything) == [f"{name}.png" for name in "abcdefh"]
    assert _plan(archive, output)[1] == after


def test_runs_that_plan_at_once_agree(tmp_path):
    archive, output = tmp_path / "archive", tmp_path / "out"
    _images(archive, list("abcdefgh"))
    with ThreadPoolExecutor(4) as pool:
        sizes = [1, 2, 3, 4]
        plans = list(pool.map(lambda size: _plan(archive, output, size)[1], sizes))
    assert all(plan == plans[0] for plan in plans)


def test_another_unit_size_does_not_cut_a_planned_shard_anew(tmp_path):
    output = tmp_path.as_uri()
    first = plan_units(_shards(tmp_path, (0, 4), (4, 8)), output, GENERATION)
    again = plan_units(_shards(tmp_path, (0, 8)), output, GENERATION)
    assert again == first


def test_an_image_that_is_gone_or_new_does_not_undo_a_finished_unit(tmp_path):
    archive, output = tmp_path / "archive", tmp_path / "out"
    _images(archive, ["a", "b", "c", "d"])
    _, before = _plan(archive, output)
    (archive / "b.png").unlink()
    _images(archive, ["e"])
    source, after = _plan(archive, output)
    work = sort_out(after, source, _parts(*before.units))
    assert [unit.keys for unit in work.done] == [("a.png", "b.png", "c.png"), ("d.png",)]
    assert [unit.keys for unit in work.todo] == [("e.png",)]
    assert not work.changed


def test_a_changed_image_is_reported_once_done_and_taken_as_it_is_before(tmp_path):
    archive, output = tmp_path / "archive", tmp_path / "out"
    _images(archive, ["a", "b", "c", "d"])
    _, before = _plan(archive, output)
    for name in ("b", "d"):
        Image.fromarray(np.ones((5, 5, 3), np.uint8)).save(archive / f"{name}.png")
    source, after = _plan(archive, output)
    work = sort_out(after, source, _parts(before.units[0]))
    assert [unit.keys for unit in work.changed] == [("a.png", "b.png", "c.png")]
    (todo,) = work.todo
    assert todo.keys == ("d.png",)
    assert todo.objects[0] != before.units[1].objects[0]
    assert todo.objects[0].size == (archive / "d.png").stat().st_size


@pytest.mark.parametrize("finished", [0, 1, 2])
def test_a_shard_uploaded_anew_is_cut_anew_only_while_nothing_of_it_is_done(tmp_path, finished):
    output = tmp_path.as_uri()
    old = plan_units(_shards(tmp_path, (0, 4), (4, 8)), output, GENERATION)
    source = _shards(tmp_path, (0, 6), (6, 12), etag="e2")
    plan = plan_units(source, output, GENERATION)
    assert [unit.stop for unit in plan.units] == [6, 12]
    work = sort_out(plan, source, _parts(*old.units[:finished]))
    assert len(work.changed) == (2 if finished else 0)
    assert len(work.todo) == (0 if finished else 2)


def test_a_shard_put_back_as_it_was_is_done_again_as_before(tmp_path):
    first, second = (_shards(tmp_path, (0, 4), (4, 8), etag=etag) for etag in ("e1", "e2"))
    old = plan_units(first, tmp_path.as_uri(), GENERATION)
    plan_units(second, tmp_path.as_uri(), GENERATION)
    plan = plan_units(first, tmp_path.as_uri(), GENERATION)
    work = sort_out(plan, first, _parts(*old.units))
    assert (len(work.done), work.todo, work.changed) == (2, [], [])


def test_other_input_needs_another_output(tmp_path):
    archive, output = tmp_path / "archive", tmp_path / "out"
    _images(archive, ["a"])
    _images(archive / "b", ["c"])
    _plan(archive, output)
    with pytest.raises(InputError, match=r"archive/b.*another --output"):
        _plan(archive / "b", output)


def test_what_was_done_from_the_newer_version_stays_done(tmp_path):
    unit = Unit("tar", (ObjectRef("file:///s.tar", "e1", 9),))
    newer = replace(unit, objects=(ObjectRef("file:///s.tar", "e2", 9),))
    source = Source("file:///s.tar", "tar", None, (newer,))
    plan_units(Source("file:///s.tar", "tar", None, (unit,)), tmp_path.as_uri(), GENERATION)
    plan = plan_units(source, tmp_path.as_uri(), GENERATION)
    work = sort_out(plan, source, _parts(newer))
    assert (work.done, work.todo, work.changed) == ([newer], [], [])
