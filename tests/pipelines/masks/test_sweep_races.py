"""Whatever happens while a removal is on its way, and wherever it is killed, nothing is lost."""

from __future__ import annotations

import json

import pytest

from pipelines import storage
from pipelines.errors import NotFoundError, StoreError
from pipelines.masks import condemned, head, snapshots, sweep
from pipelines.masks.generation import part_name
from pipelines.masks.head import Head
from pipelines.masks.plans import load_plan
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


def meanwhile(monkeypatch, place, name, action, *, after=False):
    """Let ``action`` happen once, right before (or after) a function is called."""
    real = getattr(place, name)
    done: list[bool] = []

    def call(*arguments, **options):
        if not done and not after:
            done.append(True)
            action()
        result = real(*arguments, **options)
        if not done and after:
            done.append(True)
            action()
        return result

    monkeypatch.setattr(place, name, call)
    return done


def roll_back(output, generation=A):
    return lambda: head.publish(output, Head(generation=generation, sequence=1))


def swapped_back(output, generation=A):
    """The end of a roll back that had looked at everything before the removal began."""
    now = {"generation": generation, "sequence": 1, "writer": "test"}
    return lambda: storage.replace(head.head_uri(output), json.dumps(now).encode())


@pytest.mark.parametrize(
    ("place", "name", "after", "how"),
    [
        (sweep, "decide", True, roll_back),
        (condemned, "announce", False, roll_back),
        (storage, "swap", False, swapped_back),  # of the pointer for itself: the last moment
    ],
)
def test_a_roll_back_during_the_removal_keeps_what_it_publishes(
    monkeypatch, four_models, place, name, after, how
):
    output, folder = four_models
    with monkeypatch.context() as patch:
        done = meanwhile(patch, place, name, how(output), after=after)
        swept = sweep.sweep(output, KEEP, remove=True, progress=lambda _: None)
    assert done
    assert head.read(output) == Head(generation=A, sequence=1)
    proven(output, deep=True)
    assert A not in {one.found.generation for one in swept.doomed}
    assert not list(folder.glob("_fcn/gc/*"))


def test_who_looked_at_the_pointer_before_the_removal_cannot_move_it_afterwards(
    monkeypatch, four_models
):
    output, _ = four_models
    now = head.read(output)
    with monkeypatch.context() as patch:
        # The mover has checked everything and is about to swap; a whole removal comes between.
        meanwhile(patch, storage, "swap", lambda: removed(output))
        assert not head.move(output, Head(generation=A, sequence=1), from_=now)
    assert head.read(output) == now
    proven(output)
    with pytest.raises(NotFoundError):
        roll_back(output)()


def test_what_is_condemned_is_refused_until_it_is_gone_and_then_because_it_is_gone(
    monkeypatch, four_models
):
    output, _ = four_models
    outputs.retry(output, made=outputs.generation("model-d"))
    stray = part_name(outputs.units(output, outputs.generation("model-d"))[0])
    outputs.make_older(storage.local_path(output), 10)
    said = []

    def try_both():
        for refuse, arguments in (
            (condemned.refuse_snapshot, (output, A, 1)),
            (condemned.refuse_parts, (output, D, [stray])),
            (condemned.refuse_parts, (output, B, [])),
        ):
            with pytest.raises((StoreError, NotFoundError)) as error:
                refuse(*arguments)
            said.append(str(error.value))

    with monkeypatch.context() as patch:
        meanwhile(patch, storage, "delete", try_both)
        removed(output)
    assert all("is being removed by jobs/gc.py" in text for text in said)
    with pytest.raises(NotFoundError, match="there is no"):
        condemned.refuse_snapshot(output, A, 1)
    with pytest.raises(StoreError, match=r"not in .* any more") as error:
        condemned.refuse_parts(output, D, [stray])
    assert error.value.transient
    condemned.refuse_snapshot(output, D, 3)
    condemned.refuse_parts(
        output,
        D,
        [part.name for part in outputs.newest(output, outputs.generation("model-d")).parts],
    )


def test_a_night_cannot_take_up_a_part_that_is_being_removed(monkeypatch, made):
    """The input may again be what it was: then a part that was replaced is the right one."""
    _, output, folder = made
    old = part_name(outputs.units(output)[0])
    newest = outputs.retry(output)
    outputs.make_older(folder, 10)
    looked = []

    def take_up(now):
        condemned.refuse_parts(output, A, [old])
        looked.append(now.sequence)
        return [], [old.unit]

    with monkeypatch.context() as patch:
        # It has looked and found nothing condemned; a whole removal comes before its snapshot.
        real = storage.create
        done: list[bool] = []

        def create(uri, data):
            if not done:
                done.append(True)
                removed(output)
            return real(uri, data)

        patch.setattr(storage, "create", create)
        with pytest.raises(StoreError, match=r"not in .* any more"):
            snapshots.extend_by(output, A, take_up, "a-run")
    assert looked == [newest.sequence]
    assert outputs.newest(output).parts == newest.parts
    proven(output)


@pytest.mark.parametrize("published", [True, False])
def test_a_night_that_ends_during_the_removal_is_seen(monkeypatch, made, published):
    _, output, folder = made
    first = part_name(outputs.units(output)[0])
    outputs.retry(output)
    outputs.make_older(folder, 10)

    def take_up():
        """The first snapshot's part counts again, though it was a stray a moment ago."""
        parts = {part.name: part for part in snapshots.load(output, A, 1).parts}
        done = snapshots.extend_by(output, A, lambda _: ([], [first.unit]), "a-run")
        done = snapshots.extend_by(output, A, lambda _: ([parts[first]], []), "a-run")
        if published:
            head.advance(output, done)

    with monkeypatch.context() as patch:
        meanwhile(patch, condemned, "announce", take_up)
        assert ("stray part", "part") not in removed(output)
    assert first in {part.name for part in outputs.newest(output).parts}
    proven(output, generation=A)
    assert not list(folder.glob("_fcn/gc/*"))


def test_killed_after_every_deletion_everything_is_whole_and_the_next_removal_goes_on(
    monkeypatch, four_models, tmp_path
):
    output, folder = four_models
    outputs.archive(tmp_path / "in", ["new"])  # of which one old generation has a second plan
    outputs.plan(output, outputs.archive(tmp_path / "in", []), outputs.generation())
    outputs.retry(output, made=outputs.generation("model-d"))
    outputs.make_older(folder, 10)
    doomed = len(decide(output, KEEP).doomed)
    real, kills = storage.delete, 0

    def delete_one(ref):
        deleted.append(ref)
        if len(deleted) > 1:
            raise KeyboardInterrupt
        return real(ref)

    with monkeypatch.context() as patch:
        patch.setattr(sweep, "DELETES_AT_ONCE", 1)
        patch.setattr(storage, "delete", delete_one)
        while decide(output, KEEP).doomed:
            deleted = []
            try:
                removed(output)
            except KeyboardInterrupt:
                kills += 1
            for generation, numbers in snapshots.numbers_by_generation(output).items():
                load_plan(output, generation)
                for number in numbers:
                    said = snapshots.load(output, generation, number)
                    assert all((folder / said.file(part)).exists() for part in said.parts)
            proven(output)
    assert kills >= doomed
    left = outputs.everything(folder)
    assert not [name for name in left if A in name or B in name]
    assert len([name for name in left if name.startswith(f"data/gen={D}")]) == 3
    proven(output, generation="all", deep=True)
    outputs.make_older(folder, 2)
    assert {kind for _, kind in removed(output)} <= {"removal"}
    assert not list(folder.glob("_fcn/gc/*"))


def test_an_output_that_never_stands_still_is_left_alone(monkeypatch, made):
    _, output, folder = made
    outputs.retry(output)
    outputs.make_older(folder, 10)
    monkeypatch.setattr(sweep, "_fence", lambda *_: False)
    names = set(outputs.everything(folder))
    with pytest.raises(StoreError, match="changed 10 times"):
        removed(output)
    assert set(outputs.everything(folder)) == names


def test_a_mover_that_starts_before_the_removal_looks_again(monkeypatch, four_models):
    output, _ = four_models
    now = head.read(output)
    with monkeypatch.context() as patch:
        meanwhile(patch, head, "_read", lambda: removed(output))
        with pytest.raises(NotFoundError):
            head.move(output, Head(generation=A, sequence=1), from_=now)
    assert head.read(output) == now
