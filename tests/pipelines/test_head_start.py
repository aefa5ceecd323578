"""A head start changes when the first item is made, and nothing else."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.head_start import HeadStart


@given(st.lists(st.integers()))
def test_all_items_come_once_and_in_order(items):
    assert list(HeadStart(iter(items))) == items


def test_the_first_item_is_made_before_it_is_asked_for_and_the_second_is_not():
    made, first = [], threading.Event()

    def items():
        for number in range(3):
            made.append(number)
            first.set()
            yield number

    ahead = HeadStart(items())
    assert first.wait(60)
    assert made == [0]
    assert list(ahead) == [0, 1, 2]


@pytest.mark.parametrize("good", [0, 2])
def test_an_error_is_raised_where_its_item_would_have_been(good):
    def items():
        yield from range(good)
        raise OSError("no more rows")

    taken: list[int] = []
    with pytest.raises(OSError, match="no more rows"):
        taken.extend(iter(HeadStart(items())))
    assert taken == list(range(good))
