"""Where the label of each key lies, found without reading a pixel wherever that is possible."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pipelines.errors import InputError
from pipelines.parquet_records import read_keys, read_texts
from pipelines.sources import Source
from pipelines.units import Unit, read_unit

UNITS_AT_ONCE = 8


@dataclass(frozen=True)
class Place:
    """A record: the number of its unit in the source, and its row there."""

    unit: int
    row: int


def index_labels(source: Source) -> dict[str, Place]:
    """The place of every key of a labelled source. Raises InputError if a key occurs twice."""
    places = list_places(source)
    for key, found in places.items():
        if len(found) > 1:
            first, second = (source.units[place.unit].identity for place in found[:2])
            raise InputError(
                f"key {key!r} labels two images, in {first} and in {second}; "
                "keys of labelled data must differ"
            )
    return {key: found[0] for key, found in places.items()}


def list_places(source: Source) -> dict[str, list[Place]]:
    """All places of every key of a labelled source.

    Of Parquet only the key column is read, of files nothing; a tar is read whole.
    """
    places: dict[str, list[Place]] = {}
    with ThreadPoolExecutor(UNITS_AT_ONCE) as pool:
        for number, keys in enumerate(pool.map(_keys, source.units)):
            for row, key in enumerate(keys):
                places.setdefault(key, []).append(Place(number, row))
    return places


def read_uris(unit: Unit) -> list[str]:
    """The URIs that the unit's records came from, as segmentation writes them, in record order."""
    if unit.kind == "raw":
        return [ref.uri for ref in unit.objects]
    if unit.kind == "nyud-mat":
        return [unit.objects[0].uri] * len(unit.keys)
    if unit.kind == "parquet":
        return read_texts(unit.objects[0], "uri", unit.start, unit.stop)
    return [record.uri for record in read_unit(unit)]


def _keys(unit: Unit) -> list[str]:
    return list(_iterate_keys(unit))


def _iterate_keys(unit: Unit) -> Iterator[str]:
    if unit.kind in {"raw", "nyud-mat"}:
        yield from unit.keys
    elif unit.kind == "parquet":
        yield from read_keys(unit.objects[0], unit.start, unit.stop)
    else:
        yield from (record.key for record in read_unit(unit))
