"""What a snapshot is: the parts of a generation that count together, and their text.

A snapshot has one part of every unit. The parts whose place newer ones took are kept in a list of
their own, since they may still lie in the folder. The text is JSON whose first line sums it up and
can be read alone, followed by a line for every part.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from pipelines.errors import InputError
from pipelines.masks.generation import PartName

FORMAT = 1
"""Raised when an older reader would misunderstand a snapshot."""
FIRST_LINE_BYTES = 1024
"""The first line is shorter."""


@dataclass(frozen=True, kw_only=True)
class SnapshotPart:
    """One unit's part: its name, its bytes, and what its rows add up to."""

    name: PartName
    etag: str
    """The store's version. A copied output has other versions of the same ``sha256``."""
    size: int
    """Bytes."""
    sha256: str
    """Of the whole file, in hexadecimal."""
    rows: int
    errors: dict[str, int] = field(default_factory=dict)
    """Error rows by kind."""
    transient: int = 0
    """Of them, those that may pass when tried again."""
    class_pixels: tuple[int, ...] = ()
    """Pixels of every class in the part's masks."""
    constant: int = 0
    """Masks of a single class."""

    @property
    def error_rows(self) -> int:
        """Rows without a mask."""
        return sum(self.errors.values())


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a snapshot adds up to: the first line of its text."""

    generation: str
    sequence: int
    created_at: str
    created_by: str
    units: int
    records: int
    error_rows: int

    @classmethod
    def from_json(cls, line: bytes) -> Summary:
        """Read the first line. Raises ValueError, KeyError or TypeError for another."""
        value = json.loads(line.removesuffix(b",") + b"}")
        _check_format(value)
        return cls(**value)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The parts of a generation that count together, in order of their units."""

    generation: str
    sequence: int
    """From 1."""
    parts: tuple[SnapshotPart, ...]
    created_by: str
    """The id of the run that wrote it."""
    created_at: str = ""
    """UTC, by the clock of the machine that wrote it."""
    replaced: tuple[SnapshotPart, ...] = ()
    """Parts whose place others of the same unit took, in this snapshot or before."""

    @property
    def units(self) -> frozenset[str]:
        """The ids of the units that have a part."""
        return frozenset(part.name.unit for part in self.parts)

    @property
    def records(self) -> int:
        """Rows, which is input records."""
        return sum(part.rows for part in self.parts)

    @property
    def errors(self) -> dict[str, int]:
        """Error rows by kind."""
        total: Counter[str] = Counter()
        for part in self.parts:
            total.update(part.errors)
        return dict(total)

    @property
    def error_rows(self) -> int:
        """Rows without a mask."""
        return sum(part.error_rows for part in self.parts)

    @property
    def transient(self) -> int:
        """Error rows that may pass when tried again."""
        return sum(part.transient for part in self.parts)

    @property
    def class_pixels(self) -> tuple[int, ...]:
        """Pixels of every class in all masks."""
        return tuple(map(sum, zip(*(part.class_pixels for part in self.parts), strict=True)))

    @property
    def summary(self) -> Summary:
        """What it adds up to."""
        return Summary(
            generation=self.generation,
            sequence=self.sequence,
            created_at=self.created_at,
            created_by=self.created_by,
            units=len(self.parts),
            records=self.records,
            error_rows=self.error_rows,
        )

    def file(self, part: SnapshotPart) -> str:
        """Where a part lies below the output."""
        return f"data/gen={self.generation}/{part.name.file}"

    def to_json(self) -> bytes:
        """The snapshot's text; `from_json` reads it."""
        first = json.dumps({"format": FORMAT, **asdict(self.summary)}).removesuffix("}") + ","
        assert len(first.encode()) < FIRST_LINE_BYTES, first
        lists = (
            f'"{name}": [\n' + ",\n".join(self._line(part) for part in listed) + "\n]"
            for name, listed in (("parts", self.parts), ("replaced", self.replaced))
        )
        return (first + "\n" + ",\n".join(lists) + "\n}\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Snapshot:
        """Read `to_json`'s text. Raises ValueError, KeyError or TypeError for another."""
        value = json.loads(data)
        _check_format(value)
        folder = f"data/gen={value['generation']}/"
        return cls(
            generation=value["generation"],
            sequence=value["sequence"],
            parts=tuple(_part(line, folder) for line in value["parts"]),
            created_by=value["created_by"],
            created_at=value["created_at"],
            replaced=tuple(_part(line, folder) for line in value["replaced"]),
        )

    def _line(self, part: SnapshotPart) -> str:
        fields = {name: value for name, value in vars(part).items() if name != "name"}
        return json.dumps({"file": self.file(part), **fields})


Parts = tuple[SnapshotPart, ...]


def merge(
    before: Snapshot | None, added: Iterable[SnapshotPart], drop: Collection[str] = ()
) -> tuple[Parts, Parts]:
    """``parts`` and ``replaced`` of a snapshot with further parts; all of them are in one of both.

    The units in ``drop`` lose their part first. An added part takes the place of the unit's older
    one, unless that is a later try at the same version. So for parts of different units, and for
    several tries at one version, the order of merges does not matter. Raises InputError for two
    versions of a unit in ``added``: only the caller knows which one the input has now.
    """
    added = tuple(added)
    _check_one_version(added)
    current = {part.name.unit: part for part in before.parts} if before else {}
    replaced = {part.name: part for part in before.replaced} if before else {}
    for part in [current.pop(unit) for unit in current.keys() & set(drop)]:
        replaced[part.name] = part
    for part in added:
        old = current.get(part.name.unit)
        if old is not None and _is_later_try(old.name, part.name):
            replaced[part.name] = part
            continue
        if old is not None and old.name != part.name:
            replaced[old.name] = old
        replaced.pop(part.name, None)  # the input is again what it once was
        current[part.name.unit] = part
    return _in_order(current.values()), _in_order(replaced.values())


def _is_later_try(old: PartName, new: PartName) -> bool:
    return old.version == new.version and old.retry > new.retry


def _in_order(parts: Iterable[SnapshotPart]) -> Parts:
    return tuple(sorted(parts, key=lambda part: part.name))


def _check_one_version(added: Parts) -> None:
    versions: dict[str, str] = {}
    for part in added:
        if versions.setdefault(part.name.unit, part.name.version) != part.name.version:
            raise InputError(
                f"unit {part.name.unit} was given with two versions, {part.name.version} and "
                f"{versions[part.name.unit]}; give the part of the version that the input has now"
            )


def _check_format(value: dict[str, Any]) -> None:
    if value.pop("format") != FORMAT:
        raise ValueError(f"it is not of format {FORMAT}; a newer version of this project wrote it")


def _part(value: dict[str, Any], folder: str) -> SnapshotPart:
    file = value.pop("file")
    name = PartName.parse(file.removeprefix(folder))
    if name is None:
        raise ValueError(f"{file!r} is no part below {folder}")
    pixels = tuple(value["class_pixels"])
    return SnapshotPart(**value | {"name": name, "class_pixels": pixels})
