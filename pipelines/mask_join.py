"""Which label belongs to which mask: by key, and where keys repeat, by what the record is.

A record is a place in its unit, and a unit is named by a hash of its identity, which is in the name
of its part. A key can repeat: in one shard, in two, in two tars with the same file names. Then
masks and labels are joined

* by unit and place, where the labels were opened as they were segmented: the same input, in units
  of the same size,
* or else by the URI that the image came from, where that tells them apart,

and refused where neither does. Every label is compared with one mask at the most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.errors import InputError
from pipelines.label_index import Place, read_uris
from pipelines.masks.generation import part_name
from pipelines.scoring import MaskKeys
from pipelines.sources import Source

SHOWN = 3

Places = tuple[Place | None, ...]


@dataclass(frozen=True)
class Join:
    """``places`` has those of each part's rows, ``missing`` the keys of labels without a mask.

    ``repeated`` counts the mask rows of which others have the same key.
    """

    places: tuple[Places, ...]
    missing: tuple[str, ...]
    repeated: int


def join(masks: Sequence[MaskKeys], labels: Source, listed: dict[str, list[Place]]) -> Join:
    """Join masks to the labels that ``listed`` has by key.

    Raises InputError, naming key and parts, if a label could belong to two masks or a mask to two
    labels.
    """
    rows: dict[str, list[_Row]] = {}
    for number, part in enumerate(masks):
        for row, key in enumerate(part.keys):
            rows.setdefault(key, []).append((number, row))
    places: list[list[Place | None]] = [[None] * len(part.keys) for part in masks]
    missing = []
    repeats = _Repeats(masks, labels)
    for key, found in rows.items():
        options = listed.get(key, [])
        matched = repeats.match(key, found, options) if options else {}
        for (number, row), place in matched.items():
            places[number][row] = place
        missing += [key] * (len(options) - len(matched))
    missing += [key for key, options in listed.items() if key not in rows for _ in options]
    repeated = sum(len(found) for found in rows.values() if len(found) > 1)
    return Join(tuple(map(tuple, places)), tuple(sorted(missing)), repeated)


_Row = tuple[int, int]
"""A mask: the number of its part, and its row there."""


class _Repeats:
    """Matches the masks and the labels of one key. URIs are read only where they are needed."""

    def __init__(self, masks: Sequence[MaskKeys], labels: Source) -> None:
        self._masks = masks
        self._labels = labels
        self._units = {part_name(unit).unit: number for number, unit in enumerate(labels.units)}
        self._uris: dict[int, list[str]] = {}

    def match(self, key: str, rows: list[_Row], options: list[Place]) -> dict[_Row, Place]:
        """The labels of those rows that have one. Raises InputError if that cannot be told."""
        if len(rows) == len(options) == 1:
            return {rows[0]: options[0]}
        found = {row: place for row in rows if (place := self._exact(row)) in options}
        if len(set(found.values())) < len(found):
            raise self._ambiguous(key, list(found))
        left = [row for row in rows if row not in found]
        free = [place for place in options if place not in found.values()]
        if not (left and free):
            return found
        sources = Counter(self._uri_of_mask(row) for row in left)
        for row in left:
            same = [place for place in free if self._uri(place) == self._uri_of_mask(row)]
            if len(same) == 1 and sources[self._uri_of_mask(row)] == 1:
                found[row] = same[0]
            elif same:
                raise self._ambiguous(key, left)
        if len(found) < min(len(rows), len(options)):
            raise self._ambiguous(key, left)
        return found

    def _exact(self, row: _Row) -> Place | None:
        """The record that a mask is of, if it is among the labels by its unit."""
        part = self._masks[row[0]]
        unit = self._units.get(part.unit)
        return None if unit is None else Place(unit, part.records[row[1]])

    def _uri_of_mask(self, row: _Row) -> str:
        return self._masks[row[0]].uris[row[1]]

    def _uri(self, place: Place) -> str:
        if place.unit not in self._uris:
            self._uris[place.unit] = read_uris(self._labels.units[place.unit])
        return self._uris[place.unit][place.row]

    def _ambiguous(self, key: str, rows: list[_Row]) -> InputError:
        parts = sorted({self._masks[number].part.uri for number, _ in rows})
        return InputError(
            f"key {key!r} repeats, and its records cannot be told apart; its masks are in "
            f"{' and in '.join(parts[:SHOWN])}. Evaluate one generation, against the input that "
            "was segmented, or give the records keys that differ"
        )
