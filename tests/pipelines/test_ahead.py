"""Items made ahead are the same, in the same order; only when they are made changes."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.ahead import Ahead, ahead

LONG = 60


@given(st.lists(st.integers()))
def test_all_items_come_once_and_in_order(items):
    assert list(ahead(items)) == items


def test_the_next_item_is_made_while_one_is_in_use_and_no_further_one():
    made: list[int] = []
    begun = [threading.Event() for _ in range(4)]

    def items():
        for number, event in enumerate(begun):
            made.append(number)
            event.set()
            yield number

    for number in ahead(items()):
        if number + 1 < len(begun):
            assert begun[number + 1].wait(LONG)
        assert made == list(range(min(number + 2, len(begun))))


@pytest.mark.parametrize("good", [0, 2])
def test_an_error_is_raised_where_its_item_would_have_been(good):
    def items():
        yield from range(good)
        raise OSError("no more rows")

    taken: list[int] = []
    with pytest.raises(OSError, match="no more rows"):
        taken.extend(ahead(items()))
    assert taken == list(range(good))


def test_after_the_end_there_is_the_end():
    made = Ahead([1], 2)
    assert list(made) == [1]
    assert list(made) == []


def test_no_more_items_are_made_than_there_is_room_for_and_none_after_close():
    threads = set(threading.enumerate())
    made: list[int] = []
    third = threading.Event()

    def items():
        for number in range(100):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    items_ahead = Ahead(items(), 2)
    assert [next(items_ahead), next(items_ahead)] == [0, 1]
    assert made == [0, 1]
    items_ahead.free()
    assert third.wait(LONG)
    items_ahead.close()
    for thread in set(threading.enumerate()) - threads:
        thread.join(LONG)
        assert not thread.is_alive()
    assert made == [0, 1, 2]
