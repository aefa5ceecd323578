"""What makes two runs of bulk segmentation the same work: the generation, and the names it gives.

The masks of one input are a function of the weights, the preprocessing, the classes, the precision
and the rules of this code. Everything of that is hashed into the generation; library versions and
the machine are not, they belong in the run record.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Literal

from pipelines import storage
from pipelines.units import Unit

INFERENCE_ABI = 5
"""Raised by hand whenever the same inputs would give other rows than before."""

_PART = re.compile(
    r"part-(?P<unit>[0-9a-f]{16})-(?P<version>[0-9a-f]{16})(-r(?P<retry>[1-9][0-9]{0,8}))?\.parquet"
)


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The identity of a set of masks."""

    model: str
    """Digest of weights, architecture, classes and normalization (`ModelConfig.digest`)."""
    network: str
    precision: Literal["fp32", "bf16"]
    max_pixels: int
    """Larger images are error rows."""
    inference_abi: int = INFERENCE_ABI
    task: str = ""
    """The task of a network that has several; empty is the first."""

    @property
    def id(self) -> str:
        """16 hexadecimal digits."""
        return short_hash(json.dumps(self._fields(), sort_keys=True))

    def to_json(self) -> bytes:
        """The record that is stored beside the masks."""
        return json.dumps({"id": self.id, **self._fields()}, indent=1, sort_keys=True).encode()

    def _fields(self) -> dict[str, object]:
        """All fields; the task only where there is one, so that older generations keep their id."""
        return {name: value for name, value in asdict(self).items() if value or name != "task"}


@dataclass(frozen=True, order=True, slots=True)
class PartName:
    """The name of a unit's part: which unit, which version of its input, and which try at that.

    ``retry`` counts the times that a finished part was done again for its transient errors. Of the
    parts of one version the one with the highest ``retry`` is the unit's.
    """

    unit: str
    version: str
    retry: int = 0

    @property
    def file(self) -> str:
        """The file name; `parse` reads it back."""
        retry = f"-r{self.retry}" if self.retry else ""
        return f"part-{self.unit}-{self.version}{retry}.parquet"

    @classmethod
    def parse(cls, file: str) -> PartName | None:
        """The part that a file name stands for, or None for a name that is not ours."""
        match = _PART.fullmatch(file)
        if match is None:
            return None
        return cls(match["unit"], match["version"], int(match["retry"] or 0))


def part_name(unit: Unit) -> PartName:
    """The first part of a unit: a function of the input alone, never of time, load or cluster."""
    return PartName(short_hash(unit.identity), short_hash(unit.version))


def data_uri(output: str, generation: Generation) -> str:
    """The folder of the generation's parts, plain Parquet for any reader."""
    return storage.join(output, "data", f"gen={generation.id}")


def short_hash(text: str) -> str:
    """64 bits of SHA-256, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
