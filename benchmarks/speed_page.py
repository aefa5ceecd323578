"""The page of docs that shows recorded ratios: a table for each benchmark, and one picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")
from matplotlib import pyplot as plt

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
        lines += ["| ratio | median | spread | goal |", "|---|---|---|---|"]
        for ratio, value in entry["ratios"].items():
            spread = f"{min(value['samples']):.3g} to {max(value['samples']):.3g}"
            lines.append(f"| {ratio} | {value['median']:.3g} | {spread} | {_goal(value)} |")
        lines.append("")
    return "\n".join(lines)


def _goal(value: Mapping[str, Any]) -> str:
    if value["goal"] is None:
        return ""
    margin = value["median"] - value["goal"]
    reached = margin >= 0 if value["at_least"] else margin <= 0
    sign = "≥" if value["at_least"] else "≤"
    return f"{sign} {value['goal']:g}{'' if reached else ', missed'}"


def picture(recorded: Mapping[str, Any], path: Path) -> None:
    """Each ratio in units of its goal, on a line of its own; right of 1 is better."""
    rows = [
        (f"{name}: {ratio}", value)
        for name, entry in recorded.items()
        for ratio, value in entry["ratios"].items()
        if value["goal"]
    ]
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.4 * len(rows)), dpi=120)
    for line, (_, value) in enumerate(reversed(rows)):
        way = 1 if value["at_least"] else -1
        samples = [(sample / value["goal"]) ** way for sample in value["samples"] if sample > 0]
        median = (value["median"] / value["goal"]) ** way if value["median"] > 0 else None
        axes.plot(samples, [line] * len(samples), "o", color="tab:gray", alpha=0.6)
        if median is not None:
            axes.plot([median], [line], "D", color="tab:blue" if median >= 1 else "tab:red")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [name for name, _ in reversed(rows)], fontsize=8)
    axes.set_xlabel("times better than its goal (grey: samples; blue or red: their median)")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
