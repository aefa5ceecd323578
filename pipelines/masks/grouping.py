"""How input that no plan has yet becomes units: files in full groups, shards as they were cut.

Only the very first unit is small (`first_unit`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from pipelines.cutting import cut_files
from pipelines.masks.first_unit import small_first
from pipelines.sources import Source
from pipelines.storage import ObjectRef
from pipelines.units import Unit


@dataclass(frozen=True)
class UnitLimits:
    """How large a unit of files may become; one file is always a unit's worth.

    ``records`` is None for as many as are fitting, of the new files (`pipelines.cutting.fitting`).
    """

    records: int | None
    bytes: int


def new_units(
    planned: Sequence[Unit],
    superseded: Sequence[Unit],
    source: Source,
    planes: Sequence[str],
    limits: UnitLimits,
) -> tuple[Unit, ...]:
    """The units of what ``planned`` lacks: files by URI, shards by URI and version.

    Files come in the order of the source, in groups as long as the limits allow, wherever they lie
    between planned ones. The first of several units is small (`first_unit`). A shard that is back
    in a version of which ``superseded`` has a cut gets that cut, so that there is one cut of every
    version.

    Units of a plan know no labels, and of planes those in ``planes``: others would be fetched for
    nothing.
    """
    shards = _shards(planned, superseded, source)
    files = _Files.new(planned, source, planes).grouped(limits)
    return small_first((*shards, *files), (*planned, *superseded))


def _shards(planned: Sequence[Unit], superseded: Sequence[Unit], source: Source) -> Iterator[Unit]:
    known = {unit.objects[0] for unit in planned if unit.kind != "raw"}
    cuts: dict[ObjectRef, dict[Unit, None]] = {}
    for unit in source.units:
        if unit.kind != "raw" and unit.objects[0] not in known:
            cuts.setdefault(unit.objects[0], {})[unit] = None
    earlier: dict[ObjectRef, dict[Unit, None]] = {}
    for unit in superseded:
        if unit.objects[0] in cuts:
            earlier.setdefault(unit.objects[0], {})[unit] = None
    for units in (cuts | earlier).values():
        yield from units


@dataclass
class _Files:
    """Columns of the files that no plan has."""

    keys: list[str] = field(default_factory=list)
    refs: list[ObjectRef] = field(default_factory=list)
    planes: dict[str, list[ObjectRef]] = field(default_factory=dict)

    @classmethod
    def new(cls, planned: Sequence[Unit], source: Source, planes: Sequence[str]) -> _Files:
        files = cls()
        identity = _Identity(source)
        known = {
            identity.of(key, ref)
            for unit in planned
            if unit.kind == "raw"
            for key, ref in zip(unit.keys, unit.objects, strict=True)
        }
        for unit in source.units:
            if unit.kind != "raw":
                continue
            new = [
                index
                for index, (key, ref) in enumerate(zip(unit.keys, unit.objects, strict=True))
                if identity.of(key, ref) not in known
            ]
            files.keys += [unit.keys[index] for index in new]
            files.refs += [unit.objects[index] for index in new]
            for name, refs in unit.planes:
                if name in planes:
                    files.planes.setdefault(name, []).extend(refs[index] for index in new)
        return files

    def grouped(self, limits: UnitLimits) -> Iterator[Unit]:
        sizes = [ref.size for ref in self.refs]
        for refs in self.planes.values():
            sizes = [size + ref.size for size, ref in zip(sizes, refs, strict=True)]
        for start, stop in cut_files(sizes, limits.records, limits.bytes):
            yield Unit(
                "raw",
                tuple(self.refs[start:stop]),
                keys=tuple(self.keys[start:stop]),
                planes=tuple((name, tuple(refs[start:stop])) for name, refs in self.planes.items()),
            )


class _Identity:
    """What tells records of a source apart: the URI, and the key where two share a URI.

    Two images of one key are two records, and so are two keys of one image. The latter is so rare
    that a million pairs are not held in memory for it.
    """

    def __init__(self, source: Source) -> None:
        raw = [unit for unit in source.units if unit.kind == "raw"]
        uris = {ref.uri for unit in raw for ref in unit.objects}
        self._shared: frozenset[str] = frozenset()
        if len(uris) < sum(len(unit.objects) for unit in raw):
            counts = Counter(ref.uri for unit in raw for ref in unit.objects)
            self._shared = frozenset(uri for uri, count in counts.items() if count > 1)

    def of(self, key: str, ref: ObjectRef) -> Hashable:
        return (key, ref.uri) if ref.uri in self._shared else ref.uri
