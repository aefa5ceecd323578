"""Where the label of each key lies, found without reading a pixel wherever that is possible."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipelines.errors import InputError
from pipelines.parquet_records import read_keys
from pipelines.sources import Source
from pipelines.units import Unit, read_unit

UNITS_AT_ONCE = 8


@dataclass(frozen=True)
class Place:
    """A record: the number of its unit in the source, and its row there."""

    unit: int
    row: int


def index_labels(source: Source) -> dict[str, Place]:
    """The place of every key of a labelled source.

    Of Parquet only the key column is read, of files nothing; a tar is read whole. Raises
    InputError if a key occurs twice: a mask could not be joined to its label.
    """
    places: dict[str, Place] = {}
    with ThreadPoolExecutor(UNITS_AT_ONCE) as pool:
        for number, keys in enumerate(pool.map(_keys, source.units)):
            for row, key in enumerate(keys):
                if key in places:
                    first = source.units[places[key].unit]
                    raise InputError(
                        f"key {key!r} labels two images, in {first.identity} and in "
                        f"{source.units[number].identity}; keys of labelled data must differ"
                    )
                places[key] = Place(number, row)
    return places


def _keys(unit: Unit) -> list[str]:
    return list(_iterate_keys(unit))


def _iterate_keys(unit: Unit) -> Iterator[str]:
    if unit.kind in {"raw", "nyud-mat"}:
        yield from unit.keys
    elif unit.kind == "parquet":
        yield from read_keys(unit.objects[0], unit.start, unit.stop)
    else:
        yield from (record.key for record in read_unit(unit))
