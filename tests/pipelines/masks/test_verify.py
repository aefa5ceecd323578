"""Whatever is done to a finished output, verification names it, and nothing else."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace

import pytest

from pipelines import storage
from pipelines.errors import NotFoundError, StoreError
from pipelines.masks import plan_files, snapshots
from pipelines.masks.generation import part_name
from pipelines.masks.plans import plan_uri
from pipelines.masks.verify import verify
from pipelines.sources import Source
from pipelines.storage import ObjectRef
from pipelines.units import Unit
from tests.support import outputs

NAMES = "abcdefgh"  # three units: abc, def, gh


@pytest.fixture
def made(tmp_path):
    """A finished night: its source, its output and that as a folder."""
    source = outputs.archive(tmp_path / "in", NAMES)
    output = (tmp_path / "out").as_uri()
    outputs.night(output, source)
    return source, output, tmp_path / "out"


def _parts(folder):
    return sorted(folder.glob("data/*/*.parquet"))


@pytest.mark.parametrize("deep", [False, True])
def test_a_finished_night_is_proven_and_its_figures_are_those_of_the_files(tmp_path, deep):
    source = outputs.archive(tmp_path / "in", NAMES)
    output, made = (tmp_path / "out").as_uri(), outputs.generation()
    broken = frozenset({"b.png", "h.png"})
    uris = [
        outputs.write_part(output, made, unit, rows=outputs.rows_of(unit, made, broken))
        for unit in outputs.plan(output, source, made)
    ]
    done = outputs.snapshot(output, made, uris)
    outputs.put_snapshot(output, done)
    verdict = verify(output, source=source, deep=deep, progress=lambda _: None)
    assert not +verdict.counts
    assert (verdict.units, verdict.parts, verdict.input_records) == (3, 3, 8)
    assert (verdict.records, verdict.ok, dict(verdict.errors)) == (8, 6, {"truncated": 2})
    assert verdict.bytes == sum(path.stat().st_size for path in _parts(tmp_path / "out"))
    assert verdict.masks_decoded == 6 if deep else verdict.masks_decoded <= 6
    figures = {line[:14].strip(): line[14:30].strip() for line in verdict.to_text().splitlines()}
    assert figures["error rows"] == "2"
    assert json.loads(json.dumps(verdict.to_dict()))["counts"]["lost"] == 0


def _delete(path):
    path.unlink()


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _write_again(path):
    path.write_bytes(path.read_bytes())
    then = path.stat().st_mtime + 9
    os.utime(path, (then, then))


def _put_beside(name, content=b"x"):
    def put(path):
        other = path.parents[2] / name
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(content)

    return put


def _copy_as(name):
    return lambda path: path.with_name(name).write_bytes(path.read_bytes())


@pytest.mark.parametrize(
    ("do", "wrong"),
    [
        (_delete, {"lost": 1}),
        (_flip, {"damaged": 1}),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), {"damaged": 1}),
        (lambda path: path.write_bytes(b""), {"damaged": 1}),
        (_write_again, {"copied": 1}),
        (_copy_as(f"part-{'0' * 16}-{'1' * 16}.parquet"), {"foreign": 1}),
        (_copy_as("copy.parquet"), {"foreign": 1}),
        (_put_beside("data/readme.txt"), {"foreign": 1}),
        (_put_beside("data/.hidden"), {"foreign": 1}),
        (_put_beside("_fcn/plan/notes"), {"foreign": 1}),
        (_put_beside("_fcn/HEAD.json.bak"), {"foreign": 1}),
        (_put_beside("report/of/somebody.html"), {}),
        (_put_beside("data/_delta_log/0.json"), {}),
        (_put_beside("_fcn/.fcn-HEAD.json.lock"), {}),
        (_put_beside(f"_fcn/.fcn-{'a' * 32}.tmp"), {}),  # somebody is writing
    ],
)
def test_what_was_done_to_the_files_is_named(made, do, wrong):
    _, output, folder = made
    do(_parts(folder)[0])
    assert outputs.wrong(output) == wrong


def test_what_killed_writers_left_is_a_stray_after_a_day(made):
    _, output, folder = made
    names = (f"_fcn/.fcn-{'a' * 32}.tmp", f"_fcn/gc/{'a' * 32}.json", "_fcn/probe/1234")
    for name in names:
        _put_beside(name)(_parts(folder)[0])
    assert outputs.wrong(output) == {}
    outputs.make_older(folder, 2, *names)
    assert outputs.wrong(output) == {"stray": 3}


def test_every_planned_unit_has_one_part_in_the_snapshot(made, tmp_path):
    source, output, folder = made
    of = outputs.generation()
    done = outputs.newest(output)
    twice = replace(done.parts[0], name=replace(done.parts[0].name, retry=1))
    _copy_as(twice.name.file)(folder / done.file(done.parts[0]))
    outputs.put_snapshot(output, replace(done, parts=(twice, *done.parts)))
    assert outputs.wrong(output)["doubled"] == 1
    (folder / f"data/gen={of.id}" / twice.name.file).unlink()

    outputs.put_snapshot(output, replace(done, parts=done.parts[1:]))
    assert outputs.wrong(output) == {"unpublished": 1}  # its part lies there
    (folder / done.file(done.parts[0])).unlink()
    name = done.parts[0].name
    _put_beside(f"_fcn/failed/{of.id}/{name.unit}-{name.version}-1.json")(_parts(folder)[0])
    verdict = verify(output, progress=lambda _: None)
    assert +verdict.counts == Counter(lost=1)
    assert "1 runs could not do it" in verdict.problems[0].text
    lost = next(unit for unit in source.units if part_name(unit) == name)
    for ref in lost.objects:  # nobody can do it any more, and that is no failure
        storage.local_path(ref.uri).unlink()
    assert outputs.wrong(output) == {"gone": 1}


def test_parts_that_others_replaced_are_strays_and_later_ones_wait(made):
    _, output, _ = made
    of = outputs.generation()
    first = outputs.units(output)[0]
    again = outputs.write_part(output, of, first, retry=1)
    assert outputs.wrong(output) == {"waiting": 1}  # a part that the next snapshot will take
    outputs.put_snapshot(output, outputs.snapshot(output, of, [again]))
    assert outputs.wrong(output) == {"stray": 1}
    assert not verify(output, progress=lambda _: None).failures()


@pytest.mark.parametrize("kept", [0, 7, -1, None], ids=["empty", "few", "cut", "whole"])
@pytest.mark.parametrize("how", ["retry", "version"])
def test_a_part_that_waits_for_a_snapshot_is_read(tmp_path, how, kept):
    output, of = (tmp_path / "out").as_uri(), outputs.generation()

    def shard(etag):
        units = (Unit("parquet", (ObjectRef("file:///s.parquet", etag, 9),), stop=4),)
        return Source("file:///s.parquet", "shards", None, units)

    outputs.night(output, shard("e1"))
    (unit,) = outputs.plan(output, shard("e1" if how == "retry" else "e2"), of)
    uri = outputs.write_part(output, of, unit, retry=int(how == "retry"))
    path = storage.local_path(uri)
    path.write_bytes(path.read_bytes()[:kept])
    verdict = verify(output, progress=lambda _: None)
    kind = "waiting" if kept is None else "damaged"
    assert [(one.kind, one.where) for one in verdict.problems] == [(kind, uri)]
    assert bool(verdict.failures()) is (kept is not None)
    assert (verdict.parts, verdict.records) == (1, 4), "figures are those of the snapshot"
    done = outputs.newest(output)
    if kept is None:  # a run takes it in, and then it is the one that counts
        done = outputs.snapshot(output, of, [uri])
        outputs.put_snapshot(output, done)
        assert outputs.wrong(output) == {"stray": 1}
    else:
        with pytest.raises(StoreError, match="part-"):
            outputs.snapshot(output, of, [uri])


@pytest.mark.parametrize("field", [{"class_pixels": [19, 1, 0]}, {"unit": "0" * 16}, {"record": 1}])
def test_a_part_that_waits_is_compared_row_by_row(made, field):
    _, output, _ = made
    first, of = outputs.units(output)[0], outputs.generation()
    rows = outputs.set_first(**field)(outputs.rows_of(first, of))
    outputs.write_part(output, of, first, rows=rows, retry=1)
    assert set(outputs.wrong(output, deep=True)) & {"damaged", "doubled"}


def test_parts_of_a_generation_that_is_not_verified_are_not_read(made):
    """The first night of another model may have written any number of them."""
    source, output, _ = made
    other = outputs.generation("model-b")
    uri = outputs.write_part(output, other, outputs.plan(output, source, other)[0])
    storage.local_path(uri).write_bytes(b"x")
    assert outputs.wrong(output) == {}


def test_a_shard_that_was_cut_anew_stands_in_one_cut(tmp_path):
    output, of = (tmp_path / "out").as_uri(), outputs.generation()

    def shard(etag, *cuts):
        ref = ObjectRef("file:///s.parquet", etag, 9)
        units = tuple(Unit("parquet", (ref,), start=a, stop=b) for a, b in cuts)
        return Source("file:///s.parquet", "shards", None, units)

    old, new = shard("e1", (0, 4), (4, 8)), shard("e2", (0, 6), (6, 9))
    first = outputs.night(output, old)
    assert outputs.wrong(output, source=old) == {}
    uris = [outputs.write_part(output, of, unit) for unit in outputs.plan(output, new, of)]
    assert outputs.wrong(output) == {"outdated": 2}
    added = tuple(snapshots.describe_part(uri) for uri in uris)
    both = replace(first, sequence=2, parts=(*first.parts, *added))
    outputs.put_snapshot(output, both)
    assert outputs.wrong(output)["doubled"] == 2
    outputs.put_snapshot(output, replace(both, sequence=3, parts=added, replaced=first.parts))
    assert outputs.wrong(output, source=new) == {"stray": 2}


@pytest.mark.parametrize("name", ["snap", "plan", "gen", "HEAD"])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_record_of_ours_that_is_missing_or_damaged_is_no_proof(made, name, how):
    _, output, folder = made
    path = next(path for path in (folder / "_fcn").rglob("*.*") if name in str(path))
    if how == "damaged":
        path.write_bytes(b"[]")
    else:
        path.unlink()
    if (name, how) == ("HEAD", "missing"):
        with pytest.raises(NotFoundError, match="nothing published"):
            verify(output, progress=lambda _: None)
        return
    assert verify(output, progress=lambda _: None).failures()


def test_keys_that_stand_twice_are_counted_and_forbidden_only_by_wish(tmp_path):
    source = outputs.archive(tmp_path / "in", NAMES)
    output = (tmp_path / "out").as_uri()
    outputs.night(
        output, source, change=outputs.set_first(key="same")
    )  # the first of each of three units
    verdict = verify(output, progress=lambda _: None)
    assert +verdict.counts == Counter({"same key": 3})
    assert "'same'" in verdict.problems[0].text
    assert not verdict.failures()
    assert verdict.failures(strict=True) == Counter({"same key": 3})


def test_all_generations_or_one_can_be_verified(made):
    source, output, folder = made
    other = outputs.generation("model-b")
    outputs.night(output, source, other)
    first = outputs.generation()
    done = outputs.newest(output)
    (folder / done.file(done.parts[0])).unlink()
    assert outputs.wrong(output) == {}
    assert outputs.wrong(output, generation=other.id, source=source) == {}
    assert outputs.wrong(output, generation=first.id) == {"lost": 1}
    everything = verify(output, generation="all", source=source, progress=lambda _: None)
    assert len(everything.snapshots) == 2
    assert +everything.counts == Counter(lost=1, missing=done.parts[0].rows)
    with pytest.raises(NotFoundError, match="no snapshot of 0000"):
        verify(output, generation="0" * 16, progress=lambda _: None)


def test_an_output_whose_first_night_published_nothing_is_said_to_be_so(tmp_path):
    source = outputs.archive(tmp_path / "in", NAMES)
    output, of = (tmp_path / "out").as_uri(), outputs.generation()
    uris = [outputs.write_part(output, of, unit) for unit in outputs.plan(output, source, of)]
    for named, what in (
        (None, "nothing published"),
        ("all", "nothing published"),
        ("ab", "no snap"),
    ):
        with pytest.raises(NotFoundError, match=f"{what}.* no snapshot yet: .*Run jobs/segment"):
            verify(output, generation=named, progress=lambda _: None)
    outputs.snapshot(output, of, uris)
    with pytest.raises(NotFoundError, match=f"nothing published; there are snapshots .* {of.id}, "):
        verify(output, progress=lambda _: None)
    assert outputs.wrong(output, generation="all") == {}


def test_the_input_is_compared_record_by_record(made, tmp_path):
    _, output, _ = made
    outputs.archive(tmp_path / "in", ["new"])
    (tmp_path / "in" / "a.png").unlink()
    (tmp_path / "in" / "b.png").write_bytes(b"another version")
    now = outputs.archive(tmp_path / "in", [])
    verdict = verify(output, source=now, progress=lambda _: None)
    assert +verdict.counts == Counter(missing=1, outdated=1, gone=1)
    assert {(problem.kind, problem.where.rsplit("/", 1)[1]) for problem in verdict.problems} == {
        ("missing", "new.png"),
        ("outdated", "b.png"),
        ("gone", "in"),
    }


@pytest.mark.s3
def test_it_works_on_a_real_store(s3, tmp_path):
    source = outputs.archive(tmp_path / "in", NAMES)
    output = s3.uri()
    done = outputs.night(output, source)
    assert outputs.wrong(output, source=source, deep=True) == {}
    key = storage.join(output, done.file(done.parts[0])).removeprefix(f"s3://{s3.bucket}/")
    s3.client().put_object(Bucket=s3.bucket, Key=key, Body=b"something else")
    other = storage.join(output, done.file(done.parts[1])).removeprefix(f"s3://{s3.bucket}/")
    s3.client().delete_object(Bucket=s3.bucket, Key=other)
    rows = done.parts[0].rows + done.parts[1].rows
    assert outputs.wrong(output, source=source) == {"damaged": 1, "lost": 1, "missing": rows}


def test_a_plan_that_is_missing_among_others_is_damage(made, tmp_path):
    source, output, _ = made
    uri = plan_uri(output, outputs.generation().id, 2)
    storage.create(uri, plan_files.encode(source.units))
    assert outputs.wrong(output) == {"damaged": 1}
