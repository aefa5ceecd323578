"""What is left to do follows from the plan, the listing of the input and the listing of parts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.masks.carry import RowState
from pipelines.masks.generation import Generation, PartName, part_name
from pipelines.masks.parked import PARK_AFTER
from pipelines.masks.plans import Plan
from pipelines.masks.sorting import Again, Found, sort_out
from pipelines.sources import Source
from pipelines.storage import ObjectRef
from pipelines.units import Unit

GENERATION = Generation(model="m", network="n", precision="fp32", max_pixels=1)
EVERYTHING = Again(errors=True, changed=True, parked=True)


def _unit(versions, names=None):
    """Files a, b, ... of these one-letter versions; a dot stands for a file that is not there."""
    files = [
        (name, version)
        for name, version in zip(names or "abcdefgh", versions, strict=False)
        if version != "."
    ]
    refs = tuple(ObjectRef(f"s3://a/{name}.jpg", version, 1) for name, version in files)
    return Unit("raw", refs, keys=tuple(name for name, _ in files))


def _source(versions):
    return Source("s3://a", "archive", None, (_unit(versions),))


def _shard(version, *cuts):
    ref = ObjectRef("s3://a/s.parquet", version, 9)
    return tuple(Unit("parquet", (ref,), start=a, stop=b) for a, b in cuts)


def _of(units):
    return Source("s3://a", "shards", None, tuple(units))


def _not_asked(part):
    raise AssertionError(f"the rows of {part} are not needed")


def _found(*parts, rows=_not_asked, **known):
    return Found(parts=parts, rows=rows, **known)


def _where(work):
    names = ("done", "todo", "retry", "changed", "parked", "vanished")
    return {name: len(getattr(work, name)) for name in names if getattr(work, name)}


def _part(unit, retry=0):
    return replace(part_name(unit), retry=retry)


def test_a_finished_archive_is_done_and_an_empty_output_is_to_do():
    plan = Plan((_unit("11"), _unit("1", "x")))
    source = Source("s3://a", "archive", None, plan.units)
    parts = tuple(map(part_name, plan.units))
    assert _where(sort_out(plan, source, _found(*parts), EVERYTHING)) == {"done": 2}
    work = sort_out(plan, source, _found())
    assert [task.name for task in work.todo] == list(parts)
    assert work.settle(Plan(), parts[:1]).missing == (work.todo[1],)


def test_a_changed_image_is_taken_as_it_is_while_its_unit_is_not_done():
    (task,) = sort_out(Plan((_unit("111"),)), _source("121"), _found()).todo
    assert task.unit == _unit("121")
    assert (task.name, task.was) == (part_name(_unit("121")), None)


def test_a_changed_image_is_reported_once_done_and_replaced_on_demand():
    plan, old = Plan((_unit("111"),)), part_name(_unit("111"))
    work = sort_out(plan, _source("121"), _found(old))
    assert _where(work) == {"changed": 1}
    assert work.settle(Plan(), [old]).parts == (old,)
    work = sort_out(plan, _source("121"), _found(old), Again(changed=True))
    (task,) = work.todo
    assert (task.name, task.was) == (part_name(_unit("121")), old)
    assert work.settle(Plan(), [old]).missing == (task,)
    assert work.settle(Plan(), [old]).parts == (old,)  # the old rows stay while there are no others
    assert work.settle(Plan(), [old, task.name]).parts == (task.name,)


def test_a_new_part_that_stands_already_counts_whatever_the_snapshot_says():
    # A night that replaced was killed before it published.
    plan, old, new = Plan((_unit("11"),)), part_name(_unit("11")), part_name(_unit("12"))
    work = sort_out(plan, _source("12"), _found(old, new, published={old: 0}))
    assert _where(work) == {"done": 1}
    assert work.settle(Plan(), [old, new]).parts == (new,)


def test_what_is_deleted_undoes_nothing_and_is_counted():
    units = (_unit("111"), _unit("1", "x"))
    parts = tuple(map(part_name, units))
    work = sort_out(Plan(units), _source("1.1"), _found(*parts), EVERYTHING)
    assert (_where(work), work.gone) == ({"done": 2}, 2)
    assert work.settle(Plan(), parts).parts == tuple(sorted(parts))


def test_what_is_deleted_before_it_was_done_is_no_work_unless_something_is_left_of_its_unit():
    units = (_unit("111"), _unit("11", "xy"))
    work = sort_out(Plan(units), _source("1.1"), _found())
    assert _where(work) == {"todo": 1, "vanished": 1}
    assert (work.gone, work.gone_todo) == (3, 1)
    assert work.excused == {part_name(units[1]).unit}
    assert not work.settle(Plan(), [part_name(units[0])]).missing


@pytest.mark.parametrize(
    ("now", "verdict"), [("1.1", "done"), ("..1", "done"), ("...", "done"), ("1.2", "changed")]
)
@pytest.mark.parametrize("made_of", ["111", "121"])
def test_a_change_is_told_from_a_deletion_whatever_versions_the_part_was_made_of(
    made_of, now, verdict
):
    """Planned as 111. Made of 121, the part's name matches neither the plan nor the listing."""
    made = _unit(made_of)
    states = [RowState(ref.uri, ref.etag, transient=False) for ref in made.objects]
    asked = []

    def rows(part):
        asked.append(part)
        return states

    part = part_name(made)
    work = sort_out(Plan((_unit("111"),)), _source(now), _found(part, rows=rows))
    assert _where(work) == {verdict: 1}
    assert work.settle(Plan(), [part]).parts == (part,)
    assert asked == ([part] if made_of == "121" else [])


def test_a_retry_is_the_next_try_at_units_with_errors_that_may_pass():
    units = (_unit("11"), _unit("11", "xy"), _unit("11", "uv"))
    source = Source("s3://a", "archive", None, units)
    parts = (_part(units[0]), _part(units[0], 1), _part(units[1]), _part(units[2], 2))
    published = {parts[1]: 0, parts[2]: 3, parts[3]: 1}
    found = _found(*parts, published=published)
    assert _where(sort_out(Plan(units), source, found)) == {"done": 3}
    work = sort_out(Plan(units), source, found, Again(errors=True))
    assert [(task.name, task.was) for task in work.retry] == [
        (_part(units[1], 1), parts[2]),
        (_part(units[2], 3), parts[3]),
    ]
    assert work.done[0].name == parts[1]
    after = work.settle(Plan(), [*parts, _part(units[2], 3)])
    assert set(after.parts) == {parts[1], parts[2], _part(units[2], 3)}
    assert [task.name for task in after.missing] == [_part(units[1], 1)]


def test_a_try_that_is_not_published_yet_is_not_tried_again():
    # Another run retries, or was killed before it published: its part may be without errors.
    unit = _unit("11")
    found = _found(_part(unit), _part(unit, 1), published={_part(unit): 2})
    work = sort_out(Plan((unit,)), _source("11"), found, EVERYTHING)
    assert [task.name for task in work.done] == [_part(unit, 1)]


@pytest.mark.parametrize(("transient", "verdict"), [("010", "done"), ("011", "retry")])
def test_the_error_of_a_deleted_image_is_not_retried_for_ever(transient, verdict):
    unit = _unit("111")
    rows = [
        RowState(ref.uri, ref.etag, transient=flag == "1")
        for ref, flag in zip(unit.objects, transient, strict=True)
    ]
    found = _found(part_name(unit), rows=lambda _: rows, published={part_name(unit): 1})
    work = sort_out(Plan((unit,)), _source("1.1"), found, Again(errors=True))
    assert _where(work) == {verdict: 1}


def test_a_unit_is_parked_after_three_runs_and_unparked_by_a_new_version_or_on_demand():
    plan, name = Plan((_unit("11"),)), part_name(_unit("11"))
    for count in range(5):
        found = _found(failures={(name.unit, name.version): count})
        expected = "parked" if count >= PARK_AFTER else "todo"
        assert _where(sort_out(plan, _source("11"), found)) == {expected: 1}
        assert _where(sort_out(plan, _source("12"), found)) == {"todo": 1}
        assert _where(sort_out(plan, _source("11"), found, Again(parked=True))) == {"todo": 1}


def test_a_parked_replacement_or_retry_leaves_the_old_part_in_place():
    plan, old, new = Plan((_unit("11"),)), part_name(_unit("11")), part_name(_unit("12"))
    failed = {(new.unit, version): PARK_AFTER for version in (old.version, new.version)}
    found = _found(old, failures=failed, published={old: 1})
    work = sort_out(plan, _source("12"), found, Again(changed=True))
    assert _where(work) == {"parked": 1}
    assert work.settle(Plan(), [old]).parts == (old,)
    assert _where(sort_out(plan, _source("11"), found)) == {"done": 1}
    work = sort_out(plan, _source("11"), found, Again(errors=True))
    assert _where(work) == {"parked": 1}  # asked for, not done: it must be said
    assert work.settle(Plan(), [old]).parts == (old,)
    work = sort_out(plan, _source("11"), found, Again(errors=True, parked=True))
    assert _where(work) == {"retry": 1}


@pytest.mark.parametrize(("failures", "verdict"), [(0, "retry"), (PARK_AFTER, "parked")])
def test_a_retry_that_came_to_nothing_does_not_bring_back_what_a_deleted_image_was_before(
    failures, verdict
):
    # File a was replaced, and then deleted: the input is again what the first part was made of.
    first, second = part_name(_unit("11")), part_name(_unit("21"))
    states = [RowState(ref.uri, ref.etag, transient=True) for ref in _unit("21").objects]
    failed = {(first.unit, first.version): failures}
    found = Found(
        parts=(first, second), rows=lambda _: states, published={second: 2}, failures=failed
    )
    work = sort_out(Plan((_unit("11"),)), _source(".1"), found, Again(errors=True))
    assert _where(work) == {verdict: 1}
    assert work.settle(Plan(), [first, second]).parts == (second,)
    again = replace(first, retry=1)  # by this run, or by another at the same time
    assert work.settle(Plan(), [first, second, again]).parts == (again,)


def test_parts_that_nobody_planned_are_strays():
    unit, stray = _unit("11"), PartName("0" * 16, "1" * 16)
    old = replace(part_name(unit), version="2" * 16)
    work = sort_out(Plan((unit,)), _source("11"), _found(part_name(unit), stray, old))
    assert work.strays == [stray]
    assert work.settle(Plan(), [part_name(unit), stray, old]).parts == (part_name(unit),)


OLD, NEW = _shard("e1", (0, 4), (4, 8)), _shard("e2", (0, 6), (6, 12))
SAME = _shard("e2", (0, 4), (4, 8))


@pytest.mark.parametrize("new", [NEW, SAME])
@pytest.mark.parametrize("finished", [0, 1, 2])
def test_a_shard_uploaded_anew_is_done_anew_only_while_nothing_of_it_is_done(finished, new):
    plan = Plan(OLD).extended(new)
    parts = [part_name(unit) for unit in OLD[:finished]]
    work = sort_out(plan, _of(new), _found(*parts))
    assert _where(work) == {"changed" if finished else "todo": 2}
    one = [*parts, part_name(new[0])]
    counted = [part_name(new[0])] if not finished else sorted(parts) if finished == 2 else []
    assert list(work.settle(plan, one).parts) == counted


@pytest.mark.parametrize("new", [NEW, SAME])
def test_the_cuts_of_a_shard_are_swapped_as_a_whole(new):
    plan = Plan(OLD).extended(new)
    old, now = ([part_name(unit) for unit in units] for units in (OLD, new))
    work = sort_out(plan, _of(new), _found(*old), Again(changed=True))
    assert [task.name for task in work.todo] == now
    half = work.settle(plan, [*old, now[1]])
    assert (set(half.parts), [task.name for task in half.missing]) == (set(old), now[:1])
    whole = work.settle(plan, [*old, *now])
    assert set(whole.parts) == set(now)
    kept = {name.unit for name in now}
    gone = {name.unit for name in old} - kept
    assert gone <= whole.drop <= gone | {name.unit for name in old}
    assert not whole.drop & kept
    # Killed before it was published, or half way: the next run, with or without the flag, knows.
    assert _where(sort_out(plan, _of(new), _found(*old, *now))) == {"done": 2}
    assert _where(sort_out(plan, _of(new), _found(*old, now[0]))) == {"changed": 2}
    again = sort_out(plan, _of(new), _found(*old, now[0]), Again(changed=True))
    assert (_where(again), again.todo[0].name) == ({"done": 1, "todo": 1}, now[1])


def test_a_shard_put_back_as_it_was_has_its_old_parts_again():
    plan = Plan(OLD).extended(NEW).extended(OLD)
    old, new = ([part_name(unit) for unit in units] for units in (OLD, NEW))
    work = sort_out(plan, _of(OLD), _found(*old, *new))
    assert _where(work) == {"done": 2}
    assert set(work.settle(plan, [*old, *new]).parts) == set(old)
    work = sort_out(plan, _of(OLD), _found(*new))  # the old ones were swept away
    assert _where(work) == {"changed": 2}
    assert set(work.settle(plan, new).parts) == set(new)


def test_of_several_complete_cuts_the_newest_counts_until_that_of_now_is_complete():
    third = _shard("e3", (0, 5))
    plan = Plan(OLD).extended(NEW).extended(third)
    old, new = ([part_name(unit) for unit in units] for units in (OLD, NEW))
    work = sort_out(plan, _of(third), _found(*old, *new))
    assert _where(work) == {"changed": 1}
    assert set(work.settle(plan, [*old, *new]).parts) == set(new)
    assert set(work.settle(plan, [*old, new[0]]).parts) == set(old)
    assert work.settle(plan, [*old, *new, part_name(third[0])]).parts == (part_name(third[0]),)


def test_a_deleted_shard_keeps_its_rows_and_is_no_work():
    for parts in ([], [part_name(OLD[0])], [part_name(unit) for unit in OLD]):
        work = sort_out(Plan(OLD), _of(()), _found(*parts), EVERYTHING)
        assert [*work.todo, *work.retry, *work.changed] == []
        assert (len(work.done), work.gone) == (len(parts), 1)
        assert list(work.settle(Plan(OLD), parts).parts) == sorted(parts)


def test_a_tar_done_from_the_newer_version_stays_done():
    old, new = (Unit("tar", (ObjectRef("s3://a/s.tar", etag, 9),)) for etag in ("e1", "e2"))
    work = sort_out(Plan((old,)).extended((new,)), _of((new,)), _found(part_name(new)))
    assert _where(work) == {"done": 1}
