"""What lies in an output: every object below ``data`` and ``_fcn``, by what it is to us.

Names alone decide here; which parts are needed is for those who read the snapshots. What is not in
the list of our own names is foreign: it is reported, and nothing of ours ever removes it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pipelines import storage
from pipelines.errors import NotFoundError
from pipelines.masks.generation import PartName
from pipelines.storage import ObjectRef

Kind = Literal[
    "part",
    "snapshot",
    "head",
    "generation",
    "plan",
    "input",
    "failure",
    "run",
    "probe",
    "removal",
    "temporary",
    "lock",
    "delta",
    "foreign",
]

_PATTERNS: tuple[tuple[Kind, str], ...] = (
    ("part", r"data/gen=<G>/(?P<file>[^/]+\.parquet)"),
    ("temporary", r"(data|_fcn)/(.+/)?\.fcn-[0-9a-f]{32}\.tmp"),
    ("lock", r"_fcn/(.+/)?\.fcn-[^/]+\.lock"),
    ("delta", r"data/(gen=<G>/)?_delta_log/.+"),
    ("head", r"_fcn/HEAD\.json"),
    ("generation", r"_fcn/gen/<G>\.json"),
    ("plan", r"_fcn/plan/<G>/\d{5}\.plan"),
    ("input", r"_fcn/input/<G>\.json"),
    ("snapshot", r"_fcn/snap/<G>/(?P<sequence>\d{20})\.json"),
    ("failure", r"_fcn/failed/<G>/(?P<failed>[0-9a-f]{16}-[0-9a-f]{16})-\d+\.json"),
    ("run", r"_fcn/run/[\w.-]+\.json"),
    ("probe", r"_fcn/probe/[\w.-]+"),
    ("removal", r"_fcn/gc/[0-9a-f]{32}\.json"),
)
_NAMES = {
    kind: re.compile(pattern.replace("<G>", "(?P<generation>[0-9a-f]{16})"))
    for kind, pattern in _PATTERNS
}


@dataclass(frozen=True)
class Found:
    """An object of the output. ``generation``, ``name`` and ``sequence`` are what its name says."""

    kind: Kind
    ref: ObjectRef
    age: float
    """Seconds since it was written, by the store's own clock."""
    generation: str = ""
    name: PartName | None = None
    """Of a part: unit, version and retry. Of a failure: the unit and version that failed."""
    sequence: int = 0


@dataclass
class Census:
    """The objects of an output, in the store's order of names."""

    output: str
    objects: list[Found] = field(default_factory=list)

    def of(self, kind: Kind, generation: str | None = None) -> list[Found]:
        """The objects of a kind, of one generation or of all."""
        return [
            found
            for found in self.objects
            if found.kind == kind and generation in (None, found.generation)
        ]

    @property
    def generations(self) -> list[str]:
        """The ids of all generations that anything is there of, sorted."""
        return sorted({found.generation for found in self.objects} - {""})

    def refs(self, generation: str) -> frozenset[ObjectRef]:
        """Every object of a generation, in its version."""
        return frozenset(found.ref for found in self.objects if found.generation == generation)

    def parts(self, generation: str) -> Mapping[PartName, Found]:
        """The parts of a generation by name."""
        return {found.name: found for found in self.of("part", generation) if found.name}

    def sequences(self, generation: str) -> list[int]:
        """The numbers of a generation's snapshots, ascending."""
        return sorted(found.sequence for found in self.of("snapshot", generation))

    def failures(self, generation: str) -> Counter[PartName]:
        """How often a unit in a version could not be done."""
        return Counter(found.name for found in self.of("failure", generation) if found.name)


def take_census(output: str) -> Census:
    """List an output. Raises NotFoundError if nothing lies there, and what the store raises."""
    census = Census(output)
    for folder in ("data", "_fcn"):
        census.objects += _listed(output, folder)
    if not census.objects:
        raise NotFoundError(
            f"{output} holds no masks: there is neither data/ nor _fcn/ below it; "
            "give the --output of jobs/segment.py"
        )
    return census


def _listed(output: str, folder: str) -> Iterator[Found]:
    try:
        for ref, age in storage.list_with_ages(storage.join(output, folder), hidden=True):
            yield recognise(storage.relative(ref.uri, output), ref, age)
    except NotFoundError:  # a disk has no folder before its first file; a bucket that is missing
        if storage.is_s3(output):  # is an error, since a store has no folders
            raise


def recognise(key: str, ref: ObjectRef, age: float) -> Found:
    """What the object at ``key``, relative to the output, is by its name."""
    for kind, pattern in _NAMES.items():
        match = pattern.fullmatch(key)
        if match is None:
            continue
        said = match.groupdict()
        name = None
        if kind == "part":
            name = PartName.parse(said["file"])
            if name is None:
                break
        if kind == "failure":
            name = PartName(*said["failed"].split("-"))
        generation = said.get("generation") or ""
        return Found(kind, ref, age, generation, name, int(said.get("sequence") or 0))
    return Found("foreign", ref, age)
