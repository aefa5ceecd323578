"""Raw objects keep the unit that they were first planned in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from pipelines.generation import Generation
from pipelines.plans import planned_units
from pipelines.sources import open_source

GENERATION = Generation(model="m", network="n", precision="fp32", max_pixels=1)


def _images(folder, names):
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(folder / f"{name}.png")


def _plan(folder, output):
    source = open_source(str(folder), layout="archive", unit_records=3)
    return planned_units(source, output.as_uri(), GENERATION)


def test_new_images_form_new_units_and_leave_the_old_ones_alone(tmp_path):
    archive, output = tmp_path / "archive", tmp_path / "out"
    _images(archive, ["b", "d", "f", "h"])
    before = _plan(archive, output)
    _images(archive, ["a", "c", "e"])  # they sort between the old ones
    after = _plan(archive, output)
    assert [unit.keys for unit in after[:2]] == [("b.png", "d.png", "f.png"), ("h.png",)]
    assert after[:2] == before
    everything = [key for unit in after for key in unit.keys]
    assert sorted(everything) == [f"{name}.png" for name in "abcdefh"]
    assert _plan(archive, output) == after


def test_runs_that_plan_at_once_agree(tmp_path):
    archive, output = tmp_path / "archive", tmp_path / "out"
    _images(archive, list("abcdefgh"))
    with ThreadPoolExecutor(4) as pool:
        plans = list(pool.map(lambda _: _plan(archive, output), range(4)))
    assert all(plan == plans[0] for plan in plans)


def test_an_image_that_is_gone_keeps_its_place(tmp_path):
    archive, output = tmp_path / "archive", tmp_path / "out"
    _images(archive, ["a", "b", "c", "d"])
    before = _plan(archive, output)
    (archive / "b.png").unlink()
    after = _plan(archive, output)
    assert [unit.keys for unit in after] == [unit.keys for unit in before]
    assert after[0].objects[1].size == -1
