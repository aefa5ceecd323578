"""Parquet shards by their footers: how they are cut into units, which classes and planes they have.

A shard whose footer cannot be read is a fault of the input, or one unit among others: training and
scores must not silently lose labels, but an archive of a million images should not wait for one
file. Such a unit is the whole object. Whoever works on it meets the same damage, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

from fcn_model.classes import ClassList
from pipelines import storage
from pipelines.cutting import at_most, cut
from pipelines.datasets.tree import Tree
from pipelines.errors import ChangedError, InputError, NotFoundError, ShardError
from pipelines.parquet_records import Footer, read_footer
from pipelines.storage import ObjectRef
from pipelines.units import Unit

OnBadShard = Literal["fail", "unit"]
"""``unit``: a shard whose footer cannot be read is a unit of its own."""

_FOOTERS_AT_ONCE = 16


@dataclass(frozen=True)
class Shards:
    """What the footers of some shards say: units in the order of the shards, classes, planes."""

    units: tuple[Unit, ...]
    classes: ClassList | None
    tasks: Mapping[str, ClassList]
    planes: tuple[str, ...]


def read_shards(
    tree: Tree,
    refs: Sequence[ObjectRef],
    on_bad_shard: OnBadShard,
    unit_records: int | None,
    unit_bytes: int,
) -> Shards:
    """Read the footers of ``refs``, of which there is at least one, and cut the shards into units.

    Raises ShardError for a footer that is damaged, NotFoundError or ChangedError for a shard that
    is gone or another since it was listed, InputError for shards of different data sets. With
    ``unit`` the first three are raised only if they are so of every shard, and shards may have
    different class lists, of which none is then taken, and different planes: those of any count.
    """
    footer_of = partial(_footer, on_bad_shard=on_bad_shard)
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as pool:
        found = list(zip(refs, pool.map(footer_of, refs), strict=True))
    good = [(ref, footer) for ref, footer in found if isinstance(footer, Footer)]
    if not good:
        assert isinstance(found[0][1], Exception)
        raise found[0][1]
    rows = sum(sum(footer.group_rows) for _, footer in good)
    most = at_most(unit_records, rows, sum(ref.size for ref, _ in good))
    units = [unit for ref, footer in found for unit in _units(ref, footer, most, unit_bytes)]
    if on_bad_shard == "unit":
        planes = tuple(dict.fromkeys(name for _, footer in good for name in footer.planes))
    else:
        planes = _same_planes(good)
    classes, tasks = _classes(tree, good, on_bad_shard)
    return Shards(tuple(units), classes, tasks, planes)


def _footer(ref: ObjectRef, on_bad_shard: OnBadShard) -> Footer | InputError | ChangedError:
    """The footer, or what is wrong with the shard if it may be a unit all the same.

    It is read twice before it is called damaged: how a shard is cut is written down for good, and
    should not follow from a bit that flipped on the way.
    """
    if on_bad_shard == "fail":
        return read_footer(ref)
    try:
        return read_footer(ref)
    except (NotFoundError, ChangedError) as error:
        return error
    except ShardError:
        pass
    try:
        return read_footer(ref)
    except (ShardError, NotFoundError, ChangedError) as error:
        return error


def _units(
    ref: ObjectRef, footer: Footer | Exception, unit_records: int, unit_bytes: int
) -> Iterator[Unit]:
    """Units of consecutive row groups. Ranges follow from shard and limits, never from load."""
    if isinstance(footer, Exception):
        yield Unit("parquet", (ref,))
        return
    for start, stop in cut(footer.group_rows, footer.group_bytes, unit_records, unit_bytes):
        first = sum(footer.group_rows[:start])
        rows = sum(footer.group_rows[start:stop])
        if rows:
            yield Unit("parquet", (ref,), start=first, stop=first + rows)


def _same_planes(good: Sequence[tuple[ObjectRef, Footer]]) -> tuple[str, ...]:
    first, planes = good[0][0], good[0][1].planes
    for ref, footer in good:
        if footer.planes != planes:
            raise InputError(
                f"{first.uri} has the planes {list(planes)}, {ref.uri} "
                f"{list(footer.planes)}; they are of different data sets"
            )
    return planes


def _classes(
    tree: Tree, good: Sequence[tuple[ObjectRef, Footer]], on_bad_shard: OnBadShard
) -> tuple[ClassList | None, Mapping[str, ClassList]]:
    """``classes.json`` beside the shards, or the class lists that all their footers agree on."""
    at, first = good[0]
    if (classes := tree.classes()) is not None:
        return classes, tree.tasks() or first.tasks
    for ref, footer in good:
        if (footer.classes, footer.tasks) != (first.classes, first.tasks):
            if on_bad_shard == "unit":
                return None, {}
            raise InputError(
                f"{at.uri} and {ref.uri} have different class lists; "
                f"put the right one into {storage.join(tree.root, 'classes.json')}"
            )
    return first.classes, first.tasks
