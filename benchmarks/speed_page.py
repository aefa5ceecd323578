"""The page of docs that shows recorded ratios: a table for each benchmark, and one picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.ratios import recorded_ratios

HEAD = """# Speed, as recorded

Written by `python -m benchmarks.kept_fast --record`. Each figure is a ratio of two things that were
measured in one run; what they are says the docstring of the benchmark. Why things are as they are
stands in [speed.md](speed.md).

![Samples of each ratio, beside its goal](speed_recorded.png)
"""


def write(recorded: Mapping[str, Any], folder: Path) -> None:
    """speed_recorded.md and speed_recorded.png."""
    (folder / "speed_recorded.md").write_text(page(recorded))
    picture(recorded, folder / "speed_recorded.png")


def page(recorded: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    lines = [HEAD]
    for name, entry in recorded.items():
        lines += [f"## {name}", "", entry["machine"], ""]
        lines += ["| ratio | median | spread | goal of the long form |", "|---|---|---|---|"]
        for ratio in recorded_ratios(entry):
            missed = ", missed" if ratio.reached is False else ""
            lines.append(
                f"| {ratio.name} | {ratio.median:.3g} | {ratio.spread} | {ratio.aim}{missed} |"
            )
        lines.append("")
    return "\n".join(lines)


def picture(recorded: Mapping[str, Any], path: Path) -> None:
    """Each ratio in units of its goal, on a line of its own; right of 1 is better.

    Needs matplotlib, of the extra ``bench``.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415  (only who records needs it)

    rows = [
        (f"{name}: {ratio.name}", ratio, ratio.goal)
        for name, entry in recorded.items()
        for ratio in recorded_ratios(entry)
        if ratio.goal
    ]
    figure = Figure(figsize=(9, 1.2 + 0.4 * len(rows)), dpi=120)
    axes = figure.subplots()
    for line, (_, ratio, goal) in enumerate(reversed(rows)):
        way = 1 if ratio.at_least else -1
        samples = [_times_better(sample, goal, way) for sample in ratio.samples]
        axes.plot(samples, [line] * len(samples), "o", color="tab:gray", alpha=0.6)
        color = "tab:blue" if ratio.reached else "tab:red"
        axes.plot([_times_better(ratio.median, goal, way)], [line], "D", color=color)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xticks([0.25, 0.5, 1, 2, 4], ["1/4", "1/2", "1", "2", "4 or more"])
    axes.set_xticks([], minor=True)
    axes.set_xlim(0.2, 5.4)
    axes.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)], fontsize=8)
    axes.set_xlabel("times better than its goal (grey: samples; blue or red: their median)")
    figure.tight_layout()
    figure.savefig(path)


def _times_better(sample: float, goal: float, way: int) -> float:
    """By how many times it is beyond its goal, at least a quarter and at most four times."""
    return min(4.0, max(0.25, (sample / goal) ** way if sample > 0 else 4.0))
