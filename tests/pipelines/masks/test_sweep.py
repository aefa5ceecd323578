"""A removal takes what nobody needs, and nothing else, whatever happens meanwhile."""

from __future__ import annotations

import json

import pytest

from pipelines import storage
from pipelines.errors import ForeignObjectError, InputError, NotFoundError
from pipelines.masks import head, reader, sweep
from pipelines.masks.generation import part_name
from pipelines.masks.head import Head
from pipelines.masks.retention import Keep, decide
from pipelines.masks.verify import verify
from tests.support import outputs

KEEP = Keep(keep_snapshots=1, keep_generations=2)


def removed(output, keep=KEEP, *, remove=True):
    """The names that a removal deletes, without their folders, and why."""
    swept = sweep.sweep(output, keep, remove=remove, progress=lambda _: None)
    return sorted((one.reason, one.found.kind) for one in swept.doomed)


def proven(output, **options):
    """Verify that what is published is whole."""
    verdict = verify(output, progress=lambda _: None, **options)
    assert not verdict.failures(), verdict.problems


@pytest.fixture
def made(tmp_path):
    """A finished night of three units, and its output as a folder."""
    source = outputs.archive(tmp_path / "in", "abcdefgh")
    output = (tmp_path / "out").as_uri()
    outputs.night(output, source)
    return source, output, tmp_path / "out"


@pytest.fixture
def four_models(tmp_path):
    """Generations A to D, all of them old. The pointer is on the last."""
    return outputs.four_generations(tmp_path)


A, B, C, D = (outputs.generation(f"model-{letter}").id for letter in "abcd")


def test_a_finished_night_has_nothing_to_remove_however_old_it_is(made):
    _, output, folder = made
    outputs.make_older(folder, 1000)
    before = outputs.everything(folder)
    assert removed(output, Keep(grace_days=0, keep_snapshots=1, keep_generations=1)) == []
    assert outputs.everything(folder) == before


def test_by_default_it_is_only_shown(made):
    _, output, folder = made
    outputs.retry(output)
    outputs.make_older(folder, 10)
    before = outputs.everything(folder)
    swept = sweep.sweep(output, KEEP, progress=lambda _: None)
    assert outputs.everything(folder) == before
    text = swept.to_text()
    assert "may go" in text
    part = next(one.found.ref for one in swept.doomed if one.found.kind == "part")
    assert part.uri.rsplit("/", 1)[1] in text
    assert f"{part.size:,}" in text


def test_a_replaced_part_goes_with_the_last_snapshot_that_names_it(made):
    _, output, folder = made
    outputs.retry(output)
    outputs.make_older(folder, 10)
    assert removed(output, Keep(keep_snapshots=2)) == []
    assert removed(output) == [("old snapshot", "snapshot"), ("stray part", "part")]
    assert removed(output) == []
    proven(output, deep=True)
    assert len(list(folder.glob("data/*/*"))) == 3


def test_who_opened_the_previous_snapshot_can_read_it_for_the_grace(made):
    _, output, folder = made
    outputs.make_older(folder, 100)
    opened = reader.open_masks(output)
    outputs.retry(output)  # only now the first snapshot is not the newest any more
    assert removed(output) == []
    assert opened.to_table().num_rows == 8
    outputs.make_older(folder, 8)
    assert len(removed(output)) == 2
    with pytest.raises(OSError, match="parquet"):
        opened.to_table()
    assert reader.open_masks(output).count_rows() == 8


def test_parts_that_no_snapshot_names_yet_stay_and_late_ones_of_dead_runs_go(made, tmp_path):
    source, output, folder = made
    of = outputs.generation()
    outputs.archive(tmp_path / "in", ["new"])
    now = outputs.archive(tmp_path / "in", [])
    new = [unit for unit in outputs.plan(output, now, of) if unit not in source.units]
    outputs.write_part(output, of, new[-1])
    outputs.write_part(output, of, outputs.units(output)[0], retry=3)  # the next snapshot's
    outputs.make_older(folder, 100)
    assert removed(output) == []
    outputs.put_snapshot(output, outputs.retry(output, number=4))
    outputs.make_older(folder, 100)
    reasons = removed(output)
    assert reasons == [("old snapshot", "snapshot"), *[("stray part", "part")] * 2]
    assert [name for name in outputs.everything(folder) if part_name(new[-1]).file in name]


def test_foreign_objects_are_named_and_left(made):
    _, output, folder = made
    foreign = [
        f"data/gen={A}/part-{'0' * 16}-{'1' * 16}.parquet",  # no plan knows its unit
        f"data/gen={A}/notes.txt",
        "_fcn/notes.txt",
    ]
    for name in foreign:
        (folder / name).write_bytes(b"x")
    outputs.make_older(folder, 100)
    swept = sweep.sweep(output, KEEP, remove=True, progress=lambda _: None)
    assert swept.doomed == ()
    assert [uri.rsplit("/", 1)[1] for uri in swept.foreign] == ["notes.txt", "notes.txt"]
    assert all((folder / name).exists() for name in foreign)


def test_what_killed_writers_left_goes_after_the_grace_but_never_within_a_day(made):
    _, output, folder = made
    left = (
        f"data/gen={A}/.fcn-{'a' * 32}.tmp",
        f"_fcn/.fcn-{'a' * 32}.tmp",
        "_fcn/probe/1234",
        f"_fcn/gc/{'a' * 32}.json",
    )
    for name in left:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b'{"generations": [], "snapshots": [], "parts": []}')
    assert removed(output, Keep(grace_days=0)) == []
    outputs.make_older(folder, 2)
    assert removed(output) == [("leftover", "removal")]
    assert len(removed(output, Keep(grace_days=1))) == 3
    assert not any((folder / name).exists() for name in left)


def test_generations_before_the_last_two_go_as_a_whole(four_models):
    output, folder = four_models
    (folder / f"data/gen={A}/mine.txt").write_bytes(b"foreign")
    outputs.make_older(folder, 10, f"data/gen={A}/mine.txt")
    kinds = {kind for _, kind in removed(output)}
    assert kinds == {"snapshot", "part", "input", "plan", "generation"}
    left = {name for name in outputs.everything(folder) if A in name or B in name}
    assert left == {f"data/gen={A}/mine.txt"}
    assert removed(output) == []
    (folder / f"data/gen={A}/mine.txt").unlink()
    for generation in (C, D):
        proven(output, generation=generation, deep=True)


@pytest.mark.parametrize(
    ("young", "stay"),
    [
        (f"_fcn/plan/{A}/00000.plan", {A}),  # somebody may be at work on it
        (f"_fcn/gen/{D}.json", {A, B}),  # readers may be on what was published before
        (f"_fcn/run/{'0' * 32}.json", set()),
    ],
)
def test_a_generation_stays_while_somebody_may_need_it(four_models, young, stay):
    output, folder = four_models
    (folder / "_fcn/run").mkdir()
    (folder / young).touch()
    assert {A, B} - set(decide(output, KEEP).dead) == stay


def test_a_generation_in_the_making_stays_and_one_that_was_given_up_goes(made):
    source, output, folder = made
    outputs.plan(output, source, outputs.generation("given up"))
    outputs.make_older(folder, 10)
    outputs.night(output, source, outputs.generation("model-b"))
    outputs.make_older(folder, 10)
    outputs.plan(output, source, outputs.generation("model-c"))  # newer than the published one
    outputs.make_older(folder, 10)
    assert decide(output, KEEP).dead == {outputs.generation("given up").id}
    assert decide(output, Keep(keep_generations=1)).dead == {
        A,
        outputs.generation("given up").id,
    }


def test_nothing_but_leftovers_goes_while_nothing_is_published(four_models):
    output, folder = four_models
    (folder / "_fcn/HEAD.json").unlink()
    assert removed(output, Keep(grace_days=0, keep_snapshots=1, keep_generations=1)) == []


def test_a_pointer_to_nothing_or_a_damaged_snapshot_stops_it(four_models):
    output, folder = four_models
    outputs.retry(output, made=outputs.generation("model-d"))
    outputs.make_older(folder, 10)
    path = folder / f"_fcn/snap/{D}/{1:020d}.json"
    data = path.read_bytes()
    path.write_bytes(b"{")
    outputs.make_older(folder, 10, str(path.relative_to(folder)))
    with pytest.raises(ForeignObjectError, match="not a snapshot"):
        removed(output, Keep(keep_snapshots=2))  # it might name parts that are needed
    path.write_bytes(data)
    head.publish(output, Head(generation=D, sequence=1))
    path.unlink()
    before = outputs.everything(folder)
    with pytest.raises(NotFoundError, match=r"jobs/publish\.py"):
        removed(output)
    assert outputs.everything(folder) == before


@pytest.mark.parametrize(
    "wrong", [{"grace_days": -1.0}, {"keep_snapshots": 0}, {"keep_generations": 0}]
)
def test_a_setting_that_would_remove_everything_is_refused(wrong):
    option = next(iter(wrong)).replace("_", "-")
    with pytest.raises(InputError, match=f"--{option} is"):
        Keep(**wrong)


@pytest.mark.s3
def test_it_works_on_a_real_store(s3, tmp_path):
    source = outputs.archive(tmp_path / "in", "abcdefgh")
    output = s3.uri()
    outputs.night(output, source)
    outputs.retry(output)
    writer = json.loads(storage.read_bytes(head.head_uri(output)))["writer"]
    now = Keep(grace_days=0, keep_snapshots=1)
    assert removed(output, Keep(grace_days=1, keep_snapshots=1)) == []
    assert removed(output, now) == [("old snapshot", "snapshot"), ("stray part", "part")]
    assert json.loads(storage.read_bytes(head.head_uri(output)))["writer"] != writer
    proven(output, deep=True)
