"""The pointer moves whole, for one writer at a time, and never takes units from readers unasked."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipelines import storage
from pipelines.errors import ForeignObjectError, IncompleteError, NotFoundError
from pipelines.masks import head, snapshots
from pipelines.masks.head import Head
from tests.support.mask_output import G1, G2, made_up, name_of


@pytest.fixture
def output(tmp_path):
    return storage.parse_uri(str(tmp_path / "out"))


def _snapshot(output, units, generation=G1):
    """The generation's next snapshot, with those units more."""
    return snapshots.extend(output, generation, [made_up(unit) for unit in units], "run")


def _at(snapshot, **fields):
    return Head(generation=snapshot.generation, sequence=snapshot.sequence, **fields)


def test_the_pointer_moves_only_from_where_it_was_seen(output):
    one, two, three = (_snapshot(output, [unit]) for unit in range(3))
    assert head.read(output) is None
    assert not head.move(output, _at(two), from_=_at(one))
    assert head.read(output) is None
    assert head.move(output, _at(one), from_=None)
    assert head.read(output) == _at(one)
    assert not head.move(output, _at(three), from_=_at(two))
    assert not head.move(output, _at(three), from_=None)
    assert head.read(output) == _at(one)
    assert head.move(output, _at(two), from_=_at(one))
    assert head.move(output, _at(two), from_=_at(one))  # another writer had put it there
    assert head.read(output) == _at(two)
    stored = json.loads(storage.read_bytes(head.head_uri(output)))
    assert (stored["generation"], stored["sequence"]) == (G1, 2)


def test_the_pointer_never_leads_to_nothing(output):
    one = _snapshot(output, [1])
    with pytest.raises(NotFoundError, match="snapshot 2 of generation"):
        head.move(output, Head(generation=G1, sequence=2), from_=None)
    head.publish(output, _at(one))
    with pytest.raises(NotFoundError, match="there are: 1"):
        head.publish(output, Head(generation=G1, sequence=9))
    assert head.read(output) == _at(one)


def _race(output, movers, rounds):
    """In each round several move from the same place, each elsewhere; exactly one may succeed."""
    places = [_at(_snapshot(output, [unit])) for unit in range(movers + 1)]
    assert head.move(output, places[-1], from_=None)
    with ThreadPoolExecutor(movers) as pool:
        for _ in range(rounds):
            now = head.read(output)
            others = [place for place in places if place != now]
            start = threading.Barrier(movers)

            def go(to, now=now, start=start):
                start.wait()
                return head.move(output, to, from_=now)

            moved = list(pool.map(go, others))
            assert sum(moved) == 1
            assert head.read(output) == others[moved.index(True)]


def test_of_racing_movers_one_succeeds_on_a_disk(output):
    _race(output, movers=4, rounds=10)


@pytest.mark.s3
def test_of_racing_movers_one_succeeds_in_a_store(s3):
    _race(s3.uri(), movers=3, rounds=2)


def test_covering_is_having_every_unit(output):
    one = _snapshot(output, [1, 2, 3])
    other = _snapshot(output, [2, 3, 4], G2)
    assert head.covers(one, other) == {name_of(4).unit}
    assert head.covers(other, one) == {name_of(1).unit}
    assert head.covers(_snapshot(output, [4]), other) == set()


def test_a_night_publishes_its_generation_forward_only(output):
    one, two = _snapshot(output, [1]), _snapshot(output, [2])
    assert head.advance(output, one) == ""
    assert head.advance(output, two) == ""
    assert head.read(output) == _at(two)
    assert head.advance(output, one) == ""  # readers see all of it already
    assert head.read(output) == _at(two)


def test_a_new_generation_is_published_when_it_covers_the_old_one(output):
    head.advance(output, _snapshot(output, [1, 2, 3]))
    for units in ([1], [2, 8]):
        why = head.advance(output, _snapshot(output, units, G2))
        assert name_of(3).unit in why
        assert "stays published" in why
    assert head.read(output) == Head(generation=G1, sequence=1)
    excused = {name_of(3).unit}
    complete = _snapshot(output, [3], G2)
    assert head.advance(output, snapshots.load(output, G2, 2), excused=excused) == ""
    assert head.read(output) == Head(generation=G2, sequence=2)
    assert head.advance(output, complete) == ""
    assert head.read(output) == _at(complete)


def test_a_roll_back_says_what_readers_lose_and_needs_a_word(output):
    one, two = _snapshot(output, [1]), _snapshot(output, [2, 3])
    head.advance(output, two)
    with pytest.raises(IncompleteError, match=r"lacks 2 .*--allow-missing") as caught:
        head.publish(output, _at(one))
    assert name_of(2).unit in str(caught.value)
    assert head.read(output) == _at(two)
    lost = head.publish(output, _at(one), allow_missing=True)
    assert lost == {name_of(2).unit, name_of(3).unit}
    assert head.read(output) == _at(one)
    assert head.advance(output, two) == ""  # the next night goes on
    assert head.read(output) == _at(two)


def test_a_held_pointer_stays_until_it_is_released_by_hand(output):
    one, two = _snapshot(output, [1]), _snapshot(output, [2])
    head.advance(output, two)
    head.publish(output, _at(one, held=True), allow_missing=True)
    for snapshot in (two, _snapshot(output, [1, 2, 3]), _snapshot(output, [1, 2], G2)):
        assert "--hold" in head.advance(output, snapshot)
    assert head.read(output) == _at(one, held=True)
    assert head.publish(output, _at(one)) == set()
    assert head.advance(output, two) == ""
    assert head.read(output) == _at(two)


def test_a_mover_that_was_overtaken_looks_again(output, monkeypatch):
    """Another night publishes between the look and the swap; the decision is made anew."""
    first, mine = _snapshot(output, [1], G2), _snapshot(output, [1], G1)
    head.advance(output, first)
    theirs = _snapshot(output, [2], G2)
    swap = storage.swap

    def overtaken(uri, data, etag):
        monkeypatch.setattr(storage, "swap", swap)
        assert head.advance(output, theirs) == ""
        return swap(uri, data, etag)

    monkeypatch.setattr(storage, "swap", overtaken)
    assert name_of(2).unit in head.advance(output, mine)
    assert head.read(output) == _at(theirs)


@pytest.mark.parametrize("junk", [b"", b"junk", b"[1]", b"{}", b'{"generation": "x"}'])
def test_a_foreign_pointer_is_named_and_left_alone(output, junk):
    snapshot = _snapshot(output, [1])
    storage.create(head.head_uri(output), junk)
    for look in (
        lambda: head.read(output),
        lambda: head.advance(output, snapshot),
        lambda: head.publish(output, _at(snapshot)),
    ):
        with pytest.raises(ForeignObjectError, match="left untouched") as caught:
            look()
        assert head.head_uri(output) in str(caught.value)
    assert storage.read_bytes(head.head_uri(output)) == junk
