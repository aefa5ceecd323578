"""A plan begins with a small unit, so that the first masks of a run are there soon.

A unit becomes one file of masks, and files should be large. But of a run nothing is to be seen
until its first unit is through all stages, which takes a unit of 128 images some seconds on two
cores. So the first unit that a plan adds is cut in two, the front part small. One such unit is
enough for any number of actors: whichever is ready first takes it. It costs a plan one file more.

Nothing is cut where a plan adds a single unit, as on a quiet night: its masks come all at once. Nor
is a shard that was planned before in any version, so that every version of it keeps its one cut.
The cut follows from the units alone, and like any other it is written down and never changed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from pipelines.shards import ROWS_PER_GROUP
from pipelines.units import Unit

FIRST_RECORDS = ROWS_PER_GROUP
"""Records of the small unit, at most: of our shards one row group, so that none is fetched twice.
Of a shard with larger ones, the group that both parts lie in is."""


def small_first(units: Sequence[Unit], planned: Collection[Unit]) -> tuple[Unit, ...]:
    """The units that a plan adds, the first of them cut in two if there are more.

    ``planned`` are all that there were before, superseded ones among them. A tar is never cut.
    """
    if len(units) < 2 or any(unit.objects[0].uri == units[0].objects[0].uri for unit in planned):
        return tuple(units)
    return (*_cut(units[0]), *units[1:])


def _cut(unit: Unit) -> tuple[Unit, ...]:
    if unit.records is None or unit.records <= FIRST_RECORDS:
        return (unit,)
    if unit.kind == "raw":
        front, rest = range(FIRST_RECORDS), range(FIRST_RECORDS, unit.records)
        return unit.only(front), unit.only(rest)
    if unit.kind == "nyud-mat":
        keys = unit.keys
        return tuple(
            replace(unit, keys=part) for part in (keys[:FIRST_RECORDS], keys[FIRST_RECORDS:])
        )
    middle = unit.start + FIRST_RECORDS
    return replace(unit, stop=middle), replace(unit, start=middle)
