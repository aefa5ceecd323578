"""What a verification found: figures, and the problems behind them by name."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "lost",
    "doubled",
    "damaged",
    "foreign",
    "unpublished",
    "missing",
    "twice",
    "waiting",
    "stray",
    "copied",
    "same key",
    "outdated",
    "gone",
]

MEANING: dict[Kind, str] = {
    "lost": "units of which no part stands in the snapshot, or whose part is not there",
    "doubled": "units or records that stand more than once",
    "damaged": "parts that are not what the snapshot, their own footer, name or the plan says",
    "foreign": "objects that are none of ours, or parts that no plan knows",
    "unpublished": "units that have a part, which stands in no snapshot or in a newer one",
    "missing": "records of the input without a row",
    "twice": "records of the input with several rows",
    "waiting": "whole parts that the next snapshot will have in the place of others",
    "stray": "parts that others have replaced, late writes, leftovers of writing",
    "copied": "parts that were stored again: the same bytes in another version",
    "same key": "rows whose key another row has as well",
    "outdated": "records of which the input has another version by now",
    "gone": "rows or unfinished units whose input is no longer there",
}

NOTES: frozenset[Kind] = frozenset({"waiting", "stray", "copied", "same key", "outdated", "gone"})
"""What is no failure: nothing is lost or doubled by it."""

AT_MOST = 1000
"""Problems of a kind that are kept by name; the rest are counted."""


@dataclass(frozen=True)
class Problem:
    """One thing that is not as it should be."""

    kind: Kind
    where: str
    """The URI of an object, or the identity of a unit."""
    text: str


@dataclass(kw_only=True)
class Verdict:
    """Figures of what was verified. Filled while it is made, read afterwards."""

    output: str
    snapshots: list[str] = field(default_factory=list)
    """What was verified: generation and number."""
    units: int = 0
    """Planned units of the verified generations."""
    parts: int = 0
    """Parts that were read whole."""
    bytes: int = 0
    records: int = 0
    ok: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """Error rows by kind."""
    masks_decoded: int = 0
    input_records: int | None = None
    """Records of the input, if it was given."""
    counts: Counter[Kind] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    """At most `AT_MOST` of a kind; ``counts`` has them all."""

    def note(self, kind: Kind, where: str, text: str, count: int = 1) -> None:
        """Add a problem that stands for ``count`` of its kind."""
        if self.counts[kind] < AT_MOST:
            self.problems.append(Problem(kind, where, text))
        self.counts[kind] += count

    def failures(self, *, strict: bool = False) -> Counter[Kind]:
        """The kinds that fail it, with their counts; ``strict`` forbids keys that stand twice."""
        allowed = NOTES - {"same key"} if strict else NOTES
        return Counter({kind: count for kind, count in self.counts.items() if kind not in allowed})

    def to_dict(self) -> dict[str, Any]:
        """A value that JSON can hold."""
        return vars(self) | {
            "errors": dict(self.errors),
            "counts": {kind: self.counts[kind] for kind in MEANING},
            "problems": [vars(problem) for problem in self.problems],
        }

    def to_text(self) -> str:
        """The figures as a table for a terminal, one line each."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.errors.most_common())
        figures: list[tuple[str, int, str]] = [
            ("units planned", self.units, ""),
            ("parts", self.parts, ""),
            ("bytes", self.bytes, ""),
            ("records", self.records, ""),
            ("ok", self.ok, ""),
            ("error rows", self.errors.total(), kinds),
            ("masks decoded", self.masks_decoded, ""),
        ]
        if self.input_records is not None:
            figures.append(("input records", self.input_records, ""))
        with_input = {"missing", "twice"}
        figures += [
            (kind, self.counts[kind], meaning)
            for kind, meaning in MEANING.items()
            if kind not in with_input or self.input_records is not None
        ]
        lines = [f"{name:<14}{value:>16,}  {text}".rstrip() for name, value, text in figures]
        return "\n".join([f"verified       {', '.join(self.snapshots)}", *lines])
