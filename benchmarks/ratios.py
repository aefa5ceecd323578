"""What benchmarks print: ratios with their median and spread, beside a goal; and their record."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import describe

TOLERANCE = 0.25
"""By how much a ratio may be worse than the recorded one; two cores of a shared machine are noise
of half of that."""


@dataclass(frozen=True)
class Ratio:
    """Samples of one ratio, each of two things timed one after the other."""

    name: str
    samples: Sequence[float]
    goal: float | None = None
    at_least: bool = True
    """Whether the goal is a floor, and more is better."""

    @property
    def median(self) -> float:
        """Of the samples."""
        return statistics.median(self.samples)

    @property
    def reached(self) -> bool | None:
        """Whether the median reaches the goal."""
        if self.goal is None:
            return None
        return self.median >= self.goal if self.at_least else self.median <= self.goal

    @property
    def spread(self) -> str:
        """The least and the most of the samples, as text."""
        return f"{min(self.samples):.3g} to {max(self.samples):.3g}"

    @property
    def aim(self) -> str:
        """The goal as text, empty if there is none."""
        return "" if self.goal is None else f"{'≥' if self.at_least else '≤'} {self.goal:g}"

    def worse_than(self, recorded: float) -> bool:
        """Whether the median is beyond the tolerance on the bad side.

        Of a ratio that is to be small, as a share of time spent waiting, the tolerance is also one
        of the goal: recorded as 0, it may be a little more.
        """
        if self.at_least:
            return self.median < recorded * (1 - TOLERANCE)
        return self.median > recorded + TOLERANCE * max(recorded, self.goal or 0.0)


def table(ratios: Iterable[Ratio]) -> str:
    """One line each."""
    lines = [f"{'':52}{'median':>8}{'spread':>22}{'goal':>10}"]
    for ratio in ratios:
        missed = " missed" if ratio.reached is False else ""
        lines.append(f"{ratio.name:52}{ratio.median:8.3g}{ratio.spread:>22}{ratio.aim:>10}{missed}")
    return "\n".join(lines)


def record(path: Path, benchmark: str, ratios: Iterable[Ratio], packages: Sequence[str]) -> None:
    """Put a benchmark's ratios into a file of several, in place of its earlier ones."""
    found = read(path)
    found[benchmark] = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": describe(*packages),
        "ratios": {
            ratio.name: {
                "median": ratio.median,
                "samples": list(ratio.samples),
                "goal": ratio.goal,
                "at_least": ratio.at_least,
            }
            for ratio in ratios
        },
    }
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def read(path: Path) -> dict[str, Any]:
    """The file, or nothing yet."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def recorded_ratios(entry: Mapping[str, Any]) -> list[Ratio]:
    """The ratios of one benchmark, as `record` has put them down."""
    return [
        Ratio(name, value["samples"], value["goal"], value["at_least"])
        for name, value in entry["ratios"].items()
    ]


def beside(recorded: Mapping[str, Any], ratios: Iterable[Ratio]) -> str:
    """One line each, with the recorded median."""
    before = _medians(recorded)
    lines = [f"{'':52}{'median':>8}{'spread':>22}{'recorded':>10}"]
    for ratio in ratios:
        was = before.get(ratio.name)
        shown = "new" if was is None else f"{was:.3g}"
        worse = " worse" if was is not None and ratio.worse_than(was) else ""
        lines.append(f"{ratio.name:52}{ratio.median:8.3g}{ratio.spread:>22}{shown:>10}{worse}")
    return "\n".join(lines)


def regressions(recorded: Mapping[str, Any], ratios: Iterable[Ratio]) -> list[str]:
    """A line for each ratio that is worse than the recorded one by more than the tolerance.

    And for each that was recorded and is missing now.
    """
    before, lines = _medians(recorded), []
    for ratio in ratios:
        was = before.pop(ratio.name, None)
        if was is not None and ratio.worse_than(was):
            lines.append(f"{ratio.name}: {ratio.median:.3g}, recorded {was:.3g}")
    return lines + [f"{name}: not measured, recorded {was:.3g}" for name, was in before.items()]


def _medians(recorded: Mapping[str, Any]) -> dict[str, float]:
    return {name: value["median"] for name, value in recorded.get("ratios", {}).items()}
