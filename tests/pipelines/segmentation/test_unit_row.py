"""A unit's records survive the way between stages unchanged, and nothing cuts them apart."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipelines.segmentation import stages
from pipelines.segmentation.unit_row import Item, UnitRow
from pipelines.storage import ObjectRef
from pipelines.units import Unit

UNIT = Unit("raw", (ObjectRef("file:///a", "e", 3),), keys=("a",)).to_json()


def _plain(item):
    """An item with its buffers as bytes."""
    return {
        **vars(item),
        "data": bytes(item.data),
        "planes": tuple(bytes(plane) for plane in item.planes),
        "counts": tuple(item.counts),
    }


def test_a_row_is_read_back_as_it_was_also_through_arrow_blocks():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    items = [
        Item("a", "u", "e", "rgb", pixels.data.cast("B"), (b"xy", b""), 3, 4),
        Item("b", "u", "e", "encoded", b"").failed("empty", "x" * 900),
        Item("c", "u", "e", "png", b"\x89", height=1, width=1, attempts=3, counts=(0, 1)),
    ]
    row = UnitRow(UNIT, "", transient=True, retry=2, last_try=True, seconds={"s": 1.5}, items=items)
    blocks = pa.concat_tables([row.to_table(), UnitRow(UNIT).to_table()])
    again = UnitRow.from_table(blocks.slice(0, 1))
    assert [_plain(item) for item in again.items] == [_plain(item) for item in items]
    assert {**vars(again), "items": ()} == {**vars(row), "items": ()}
    assert len(again.items[1].error) == 500
    assert UnitRow.from_table(blocks.slice(1)).items == []


def test_two_units_at_a_time_are_refused():
    rows = UnitRow(UNIT).to_table()
    with pytest.raises(AssertionError, match="travels alone"):
        UnitRow.without_records(pa.concat_tables([rows, rows]))


def test_the_pixels_of_each_class_are_counted():
    mask = np.random.default_rng(0).integers(0, 4, (37, 53), dtype=np.uint8)
    assert stages.class_pixels(mask, 6) == [(mask == index).sum() for index in range(6)]
