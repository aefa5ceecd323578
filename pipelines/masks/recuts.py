"""Shards that were uploaded anew and cut anew: several cuts, of which one counts, as a whole.

Records may have moved inside the shard, so parts of two of its cuts would double some and lose
others. Until every part of the new cut stands, the old one is what readers see.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from pipelines.masks.generation import PartName, part_name
from pipelines.storage import ObjectRef
from pipelines.units import Unit


class Newest:
    """By unit and version, the newest of the parts that stand."""

    def __init__(self, parts: Iterable[PartName]) -> None:
        self._retries: dict[str, dict[str, int]] = {}
        for part in parts:
            versions = self._retries.setdefault(part.unit, {})
            versions[part.version] = max(part.retry, versions.get(part.version, 0))

    def of(self, name: PartName) -> PartName | None:
        """The newest part of the unit and version of ``name``."""
        retry = self._retries.get(name.unit, {}).get(name.version)
        return None if retry is None else PartName(name.unit, name.version, retry)

    def of_unit(self, unit: str) -> list[PartName]:
        """The newest part of each version, in an order that never changes."""
        return sorted(PartName(unit, *item) for item in self._retries.get(unit, {}).items())

    def all_of(self, names: Iterable[PartName]) -> bool:
        """Whether there is a part of every unit and version."""
        return all(self.of(name) for name in names)


@dataclass(frozen=True)
class Recut:
    """The cuts of one shard, as the parts that they make; ``older`` begins with the oldest."""

    current: tuple[PartName, ...]
    older: tuple[tuple[PartName, ...], ...]

    def blocked(self, newest: Newest) -> bool:
        """Whether parts of an old cut stand, and the current one is not complete."""
        return self._old_stands(newest) and not newest.all_of(self.current)

    def settle(self, newest: Newest) -> tuple[list[PartName], set[str]]:
        """The parts of the shard that count, and the units that must not.

        The newest cut that is complete counts. If none is, single parts of the current one count,
        unless an old one has parts; then nothing is added and nothing dropped.
        """
        for cut in (self.current, *reversed(self.older)):
            if newest.all_of(cut):
                return _standing(cut, newest), self.units - {name.unit for name in cut}
        if self._old_stands(newest):
            return [], set()
        return _standing(self.current, newest), set()

    @property
    def units(self) -> set[str]:
        """The ids of the units of all cuts."""
        return {name.unit for cut in (self.current, *self.older) for name in cut}

    def _old_stands(self, newest: Newest) -> bool:
        current = set(self.current)
        return any(newest.of(name) for cut in self.older for name in cut if name not in current)


def recuts_of(units: Iterable[Unit], superseded: Collection[Unit]) -> dict[str, Recut]:
    """By URI, the cuts of the shards that have more than one.

    ``superseded`` is in the order of time; a cut that came back counts where it was last replaced.
    """
    cuts: dict[str, dict[ObjectRef, dict[PartName, None]]] = {}
    seen: set[Unit] = set()
    for unit in reversed(tuple(superseded)):
        if unit not in seen:
            seen.add(unit)
            of_shard = cuts.setdefault(unit.objects[0].uri, {})
            of_shard.setdefault(unit.objects[0], {})[part_name(unit)] = None
    current: dict[str, list[Unit]] = {uri: [] for uri in cuts}
    for unit in units:
        if unit.objects[0].uri in current:
            current[unit.objects[0].uri].append(unit)
    return {uri: _recut(current[uri], cuts[uri]) for uri in cuts}


def _recut(units: list[Unit], cuts: dict[ObjectRef, dict[PartName, None]]) -> Recut:
    now = units[0].objects[0]
    older = [tuple(reversed(cut)) for ref, cut in reversed(cuts.items()) if ref != now]
    return Recut(tuple(map(part_name, units)), tuple(older))


def _standing(cut: Iterable[PartName], newest: Newest) -> list[PartName]:
    return [part for name in cut if (part := newest.of(name))]
