"""Whatever is done to a finished output, verification names it, and nothing else."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import images, storage
from pipelines.errors import NotFoundError, StoreError
from pipelines.masks import part_check, plan_files, snapshots
from pipelines.masks.coverage import Held, cover, hashes, held_by
from pipelines.masks.generation import PartName, part_name
from pipelines.masks.part_check import Budget
from pipelines.masks.plans import plan_uri
from pipelines.masks.verdict import Verdict
from pipelines.masks.verify import verify
from pipelines.sources import Source
from pipelines.storage import ObjectRef
from pipelines.units import Unit
from tests.support import outputs
from tests.support.made import CLASSES

NAMES = "abcdefgh"  # three units: abc, def, gh


def counts(output, **options):
    """What is wrong, by kind."""
    verdict = verify(output, progress=lambda _: None, **options)
    return {kind: count for kind, count in verdict.counts.items() if count}


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
    outputs.os.utime(path, (then, then))


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
    assert counts(output) == wrong


def test_what_killed_writers_left_is_a_stray_after_a_day(made):
    _, output, folder = made
    names = (f"_fcn/.fcn-{'a' * 32}.tmp", f"_fcn/gc/{'a' * 32}.json", "_fcn/probe/1234")
    for name in names:
        _put_beside(name)(_parts(folder)[0])
    assert counts(output) == {}
    outputs.make_older(folder, 2, *names)
    assert counts(output) == {"stray": 3}


def _set(**fields):
    return lambda rows: [rows[0] | fields, *rows[1:]]


def _another_mask(rows):
    ids = np.full((4, 5), 1, np.uint8)
    return _set(mask={"bytes": images.encode_mask(ids, CLASSES), "path": ""})(rows)


def _mask_of_another_size(rows):
    ids = np.zeros((5, 4), np.uint8)
    pixels = [20] + [0] * (len(CLASSES) - 1)
    mask = {"bytes": images.encode_mask(ids, CLASSES), "path": ""}
    return _set(mask=mask, class_pixels=pixels)(rows)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_set(record=1), "record 1 stands 2 times"),
        (_set(record=7), "there is no [0]"),
        (_set(unit="0" * 16), "it is of unit 0000"),
        (_set(model="another"), "and model another"),
        (_set(status="done"), "its status is 'done'"),
        (_set(status="error", error_kind="empty"), "does not fit its mask"),
        (_set(mask=None), "does not fit its mask"),
        (_set(class_pixels=None), "does not fit its mask"),
        (_set(error_kind="empty"), "with the error kind 'empty'"),
        (_set(height=5), "of 5x5 pixels"),
        (_set(mask={"bytes": b"no png", "path": ""}), "cannot be decoded"),
        (_another_mask, "pixels of class 0"),
        (_mask_of_another_size, "its mask is 5x4, not 4x5 pixels"),
    ],
)
def test_a_row_that_is_not_right_is_named_though_every_checksum_is(tmp_path, change, text):
    source = outputs.archive(tmp_path / "in", "abc")
    output = (tmp_path / "out").as_uri()
    outputs.night(output, source, change=change)
    verdict = verify(output, deep=True, progress=lambda _: None)
    assert set(+verdict.counts) <= {"damaged", "doubled"}
    assert any(text in problem.text for problem in verdict.problems), verdict.problems


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rows": 4}, "its snapshot says 4"),
        ({"errors": {"empty": 1}}, "the snapshot says"),
        ({"transient": 1}, "the snapshot says"),
        ({"class_pixels": (1, 2, 3)}, "the snapshot says"),
        ({"class_pixels": ()}, "cannot be read"),
        ({"sha256": "0" * 64}, "SHA-256"),
    ],
)
def test_a_snapshot_that_says_something_else_than_its_parts_is_named(made, change, text):
    _, output, _ = made
    done = snapshots.latest(output, outputs.generation().id)
    first = replace(done.parts[0], **change)
    outputs.put_snapshot(output, replace(done, parts=(first, *done.parts[1:])))
    verdict = verify(output, progress=lambda _: None)
    assert +verdict.counts == Counter(damaged=1)
    assert text in verdict.problems[0].text


def test_a_part_under_the_name_of_another_is_not_what_its_footer_says(made):
    _, output, folder = made
    done = snapshots.latest(output, outputs.generation().id)
    first, second, third = done.parts
    data = (folder / done.file(second)).read_bytes()
    (folder / done.file(first)).write_bytes(data)
    said = replace(second, name=first.name)
    outputs.put_snapshot(output, replace(done, parts=(said, second, third)))
    texts = [problem.text for problem in verify(output, progress=lambda _: None).problems]
    assert any("its footer says unit" in text for text in texts)
    assert any("does not give its name" in text for text in texts)


def test_every_planned_unit_has_one_part_in_the_snapshot(made, tmp_path):
    source, output, folder = made
    of = outputs.generation()
    done = snapshots.latest(output, of.id)
    twice = replace(done.parts[0], name=replace(done.parts[0].name, retry=1))
    _copy_as(twice.name.file)(folder / done.file(done.parts[0]))
    outputs.put_snapshot(output, replace(done, parts=(twice, *done.parts)))
    assert counts(output)["doubled"] == 1
    (folder / f"data/gen={of.id}" / twice.name.file).unlink()

    outputs.put_snapshot(output, replace(done, parts=done.parts[1:]))
    assert counts(output) == {"unpublished": 1}  # its part lies there
    (folder / done.file(done.parts[0])).unlink()
    name = done.parts[0].name
    _put_beside(f"_fcn/failed/{of.id}/{name.unit}-{name.version}-1.json")(_parts(folder)[0])
    verdict = verify(output, progress=lambda _: None)
    assert +verdict.counts == Counter(lost=1)
    assert "1 runs could not do it" in verdict.problems[0].text
    lost = next(unit for unit in source.units if part_name(unit) == name)
    for ref in lost.objects:  # nobody can do it any more, and that is no failure
        storage.local_path(ref.uri).unlink()
    assert counts(output) == {"gone": 1}


def test_parts_that_others_replaced_are_strays_and_later_ones_wait(made):
    _, output, folder = made
    of = outputs.generation()
    first = outputs.units(output)[0]
    again = outputs.write_part(output, of, first, retry=1)
    assert counts(output) == {}  # a part that the next snapshot will take
    outputs.put_snapshot(output, outputs.snapshot(output, of, [again]))
    assert counts(output) == {"stray": 1}
    assert not verify(output, progress=lambda _: None).failures()


def test_a_shard_that_was_cut_anew_stands_in_one_cut(tmp_path):
    output, of = (tmp_path / "out").as_uri(), outputs.generation()

    def shard(etag, *cuts):
        ref = ObjectRef("file:///s.parquet", etag, 9)
        units = tuple(Unit("parquet", (ref,), start=a, stop=b) for a, b in cuts)
        return Source("file:///s.parquet", "shards", None, units)

    old, new = shard("e1", (0, 4), (4, 8)), shard("e2", (0, 6), (6, 9))
    first = outputs.night(output, old)
    assert counts(output, source=old) == {}
    uris = [outputs.write_part(output, of, unit) for unit in outputs.plan(output, new, of)]
    assert counts(output) == {"outdated": 2}
    added = tuple(snapshots.describe_part(uri) for uri in uris)
    both = replace(first, sequence=2, parts=(*first.parts, *added))
    outputs.put_snapshot(output, both)
    assert counts(output)["doubled"] == 2
    outputs.put_snapshot(output, replace(both, sequence=3, parts=added, replaced=first.parts))
    assert counts(output, source=new) == {"stray": 2}


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
    outputs.night(output, source, change=_set(key="same"))  # the first of each of three units
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
    (
        folder
        / snapshots.latest(output, first.id).file(snapshots.latest(output, first.id).parts[0])
    ).unlink()
    assert counts(output) == {}
    assert counts(output, generation=other.id, source=source) == {}
    assert counts(output, generation=first.id) == {"lost": 1}
    everything = verify(output, generation="all", source=source, progress=lambda _: None)
    assert len(everything.snapshots) == 2
    assert (everything.counts["lost"], everything.counts["missing"]) == (1, 3)
    with pytest.raises(NotFoundError, match="no snapshot of 0000"):
        verify(output, generation="0" * 16, progress=lambda _: None)


def test_the_input_is_compared_record_by_record(made, tmp_path):
    source, output, folder = made
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


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)), st.integers(0, 9))
def test_single_files_are_compared_as_counting_says(wanted, have, cut):
    refs = tuple(ObjectRef(f"file:///{number}", "e", 1) for number in wanted)
    units = [Unit("raw", refs, keys=tuple("k" for _ in refs))] if refs else []
    source = Source("file:///", "archive", None, tuple(units))
    rows = [{"uri": f"file:///{number}", "etag": "e", "key": "k"} for number in have]
    identity = "raw file:///x+3 00ff"
    name = PartName("u", "v")
    held = [held_by(identity, name, rows[:cut]), held_by(identity, name, rows[cut:])]
    verdict = Verdict(output="")
    cover(source, [one for one in held if one], verdict)
    want, stand = Counter(wanted), Counter(have)
    assert verdict.input_records == len(wanted)
    assert verdict.counts["missing"] == sum(stand[number] < want[number] for number in want)
    assert verdict.counts["twice"] == sum(
        times > (want[number] or 1) for number, times in stand.items()
    )
    assert verdict.counts["gone"] == sum(stand[number] for number in stand.keys() - want.keys())


@given(st.integers(0, 20), st.lists(st.tuples(st.integers(0, 12), st.integers(1, 9)), max_size=5))
def test_ranges_of_a_shard_are_compared_as_counting_rows_says(rows, ranges):
    ref = ObjectRef("s3://b/a#1.parquet", "e", 1)
    unit = Unit("parquet", (ref,), start=0, stop=rows)
    source = Source("s3://b", "shards", None, (unit,) if rows else ())
    held = [
        held_by(
            replace(unit, start=start, stop=start + length).identity,
            PartName("u", part_name(unit).version),
            [{}] * length,
        )
        for start, length in ranges
    ]
    stand = Counter(row for start, length in ranges for row in range(start, start + length))
    verdict = Verdict(output="")
    cover(source, [one for one in held if one], verdict)
    assert verdict.counts["missing"] == sum(stand[row] == 0 for row in range(rows))
    if rows:
        assert verdict.counts["twice"] == sum(times - 1 for times in stand.values())
        assert (
            verdict.counts["gone"]
            == max((row + 1 for row in stand if row >= rows), default=rows) - rows
        )
    else:
        assert verdict.counts["gone"] == sum(stand.values())


def test_tars_and_images_of_one_file_are_compared_too():
    tars = [Unit("tar", (ObjectRef(f"s3://b/{name}.tar", "e", 1),)) for name in "ab"]
    file = ObjectRef("s3://b/n.mat", "e", 1)
    nyud = Unit("nyud-mat", (file,), keys=("5001", "5002"))
    source = Source("s3://b", "tar", None, (*tars, nyud))
    rows = [{"uri": file.uri, "etag": "e", "key": "5001"}]
    held = [
        held_by(
            tars[0].identity,
            part_name(replace(tars[0], objects=(replace(tars[0].objects[0], etag="old"),))),
            [{}] * 7,
        ),
        held_by(nyud.identity, part_name(nyud), rows),
    ]
    verdict = Verdict(output="")
    cover(source, [one for one in held if one], verdict)
    assert +verdict.counts == Counter(missing=2, outdated=7)
    named = {problem.where for problem in verdict.problems if problem.kind == "missing"}
    assert named == {"s3://b/b.tar", "s3://b/n.mat image 5002"}
    assert verdict.input_records == 2 + 7
    assert held_by("something else", PartName("u", "v"), rows) is None


def test_a_part_that_a_store_cannot_read_is_damaged_but_a_store_that_is_down_is_no_verdict(
    made, monkeypatch
):
    _, output, folder = made
    bad = storage.parse_uri(str(_parts(folder)[0]))
    real = storage.read_bytes

    def read(uri, **options):
        if uri == bad:
            raise StoreError(f"{uri}: its bytes never agree with their checksum", transient=True)
        return real(uri, **options)

    monkeypatch.setattr(part_check.storage, "read_bytes", read)
    assert counts(output) == {"damaged": 1}

    def down(uri):
        raise StoreError("nobody answers")

    monkeypatch.setattr(part_check.storage, "stat", down)
    with pytest.raises(StoreError, match="nobody answers"):
        counts(output)


def test_threads_never_hold_more_bytes_than_allowed():
    budget, lock = Budget(100), threading.Lock()
    holding, most = [0], [0]

    def work(size):
        with budget.hold(size):
            with lock:
                holding[0] += min(size, 100)
                most[0] = max(most[0], holding[0])
            time.sleep(0.001)
            with lock:
                holding[0] -= min(size, 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [30, 70, 10, 400, 50, 60] * 5))
    assert (holding[0], most[0]) == (0, 100)


@pytest.mark.s3
def test_it_works_on_a_real_store(s3, tmp_path):
    source = outputs.archive(tmp_path / "in", NAMES)
    output = s3.uri()
    done = outputs.night(output, source)
    assert counts(output, source=source, deep=True) == {}
    key = storage.join(output, done.file(done.parts[0])).removeprefix(f"s3://{s3.bucket}/")
    s3.client().put_object(Bucket=s3.bucket, Key=key, Body=b"something else")
    other = storage.join(output, done.file(done.parts[1])).removeprefix(f"s3://{s3.bucket}/")
    s3.client().delete_object(Bucket=s3.bucket, Key=other)
    rows = done.parts[0].rows + done.parts[1].rows
    assert counts(output, source=source) == {"damaged": 1, "lost": 1, "missing": rows}


def test_a_plan_that_is_missing_among_others_is_damage(made, tmp_path):
    source, output, folder = made
    uri = plan_uri(output, outputs.generation().id, 2)
    storage.create(uri, plan_files.encode(source.units))
    assert counts(output) == {"damaged": 1}


def test_hashes_of_nothing_are_none():
    assert hashes(()).size == 0
    assert isinstance(held_by("tar s3://b/x.tar", PartName("u", "v"), []), Held)
