"""How large a unit may be, and the cut of a row of files or row groups by that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

UNIT_BYTES = 64 << 20
"""A unit's, at most, unless one image or row group has more."""

FEW_RECORDS, MANY_RECORDS = 128, 512
MANY_BYTES = 16 << 20
UNITS = 64
"""See `fitting`. Of photographs `MANY_BYTES` are some 150, with pixels for 80 MB."""


def fitting(records: int, size: int) -> int:
    """How many images a unit has at most where nobody says: of ``records`` with ``size`` bytes.

    A unit is what is done again when a worker dies, and what the driver remembers, some 30 kB for
    each. So a small archive has `FEW_RECORDS` in a unit, and a larger one up to `MANY_RECORDS` as
    long as its units are `UNITS` or more, and no larger than `MANY_BYTES`.
    """
    within = MANY_BYTES * records // max(1, size)
    return max(FEW_RECORDS, min(records // UNITS, within, MANY_RECORDS))


def at_most(wanted: int | None, records: int, size: int) -> int:
    """The wanted limit of records, or for None the `fitting` one."""
    return fitting(records, size) if wanted is None else wanted


def cut_files(
    sizes: Sequence[int], max_records: int | None, max_bytes: int
) -> Iterator[tuple[int, int]]:
    """`cut` of single files; None is as many records as are `fitting`."""
    most = at_most(max_records, len(sizes), sum(sizes))
    return cut([1] * len(sizes), sizes, most, max_bytes)


def cut(
    records: Sequence[int], sizes: Sequence[int], max_records: int, max_bytes: int
) -> Iterator[tuple[int, int]]:
    """Consecutive ranges (start, stop) of items, each as long as both limits allow, never empty."""
    start, count, size = 0, 0, 0
    for index, (more, bigger) in enumerate(zip(records, sizes, strict=True)):
        if index > start and (count + more > max_records or size + bigger > max_bytes):
            yield start, index
            start, count, size = index, 0, 0
        count += more
        size += bigger
    if records:
        yield start, len(records)
