"""The short form of every benchmark of speed, beside what was recorded.

    python -m benchmarks.kept_fast
    python -m benchmarks.kept_fast --record

In a few minutes on two cores. Ratios that are worse than the recorded ones by more than the
tolerance are named, and the exit code is 1. ``--record`` puts today's in their place, in
`benchmarks/recorded.json`, and draws `docs/speed_recorded.md` and its picture anew. Short forms
say whether something became slower; whether it is fast enough is what the long ones are for.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro

from benchmarks import codecs, inference, ratios, scale, speed_page, throughput, training
from benchmarks.machine import describe
from benchmarks.ratios import Ratio

RECORDED = Path(__file__).with_name("recorded.json")
DOCS = Path(__file__).parents[1] / "docs"
PACKAGES = ("ray",)

SHORT: dict[str, Callable[[], list[Ratio]]] = {
    "inference": lambda: inference.measure(inference.Options(repeats=2)),
    "throughput small": lambda: throughput.measure(
        throughput.Options(net="small", images=2000, unit_records=128, repeats=1)
    )[0],
    "throughput fcn8s": lambda: throughput.measure(
        throughput.Options(net="fcn8s", images=32, unit_records=16, repeats=1, peer=False)
    )[0],
    "training": lambda: training.measure(replace(training.NARROW, images=24, epochs=3, kept=False)),
    "scale": lambda: scale.measure(scale.Options(images=300, times=(1, 4))),
    "codecs": lambda: codecs.of_made_files(files=16, repeats=3),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compare, or record."""

    record: bool = False
    """Put today's ratios in the place of the recorded ones."""
    only: str | None = None
    """One of the benchmarks."""


def main() -> None:
    """Run the benchmarks."""
    options = tyro.cli(Options, description=__doc__)
    print(describe(*PACKAGES), flush=True)
    started = time.monotonic()
    recorded: dict[str, Any] = ratios.read(RECORDED)
    if options.only not in (None, *SHORT):
        raise SystemExit(f"error: there is no {options.only!r}; there are {', '.join(SHORT)}")
    worse = []
    for name, measure in SHORT.items():
        if options.only not in (None, name):
            continue
        begun = time.monotonic()
        found, before = measure(), recorded.get(name, {})
        print(
            f"\n{name}, {time.monotonic() - begun:.0f} s\n{ratios.beside(before, found)}\n"
            f"recorded: {before.get('machine', 'never')}",
            flush=True,
        )
        worse += [f"{name}, {line}" for line in ratios.regressions(before, found)]
        if options.record:
            ratios.record(RECORDED, name, found, PACKAGES)
    print(f"\nin all {time.monotonic() - started:.0f} s")
    if options.record:
        speed_page.write(ratios.read(RECORDED), DOCS)
        return
    print("\n".join(f"worse: {line}" for line in worse) or "nothing is worse than recorded")
    sys.exit(bool(worse))


if __name__ == "__main__":
    main()
