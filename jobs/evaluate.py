"""Job: score masks against labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.options import Layout
from jobs.runtime import ray_session, run_job, say
from pipelines.sources import Source, open_source

if TYPE_CHECKING:
    from pipelines.evaluation import Evaluation


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score masks against labels: pixel accuracy, mean accuracy, mean IU, frequency weighted IU.

    Writes summary, per_class, per_image and confusion tables as Parquet. Counts are summed over
    the whole data set before any ratio; classes absent from labels and masks are left out.
    """

    masks: str
    """Folder or URI that segment printed."""
    labels: str
    """Folder or URI of the labelled images: shards, or a layout that prepare reads."""
    output: str
    """Folder or URI of the tables."""
    layout: Layout = "auto"
    """How the labels are laid out; auto looks."""
    split: str | None = None
    """Split of the labels, where the layout has splits."""
    task: str | None = None
    """Of labels for several tasks, those to score against, such as geo; by default the first."""
    allow_missing: bool = False
    """Score what there is, though some labels have no mask."""


def score(options: Evaluate) -> tuple[Evaluation, Source]:
    """Evaluate, write the tables and show the scores; returns them and the labels."""
    labels = open_source(options.labels, layout=options.layout, split=options.split)
    labels.refuse_inside(options.output)
    with ray_session():
        from pipelines.evaluation import evaluate  # noqa: PLC0415  (Ray, too)
        from pipelines.score_tables import write_tables  # noqa: PLC0415

        evaluation = evaluate(
            options.masks,
            labels,
            task=options.task,
            allow_missing=options.allow_missing,
            on_progress=say,
        )
        write_tables(evaluation, options.output)
    say(evaluation.to_text())
    say(f"tables: {options.output}")
    return evaluation, labels


def work(options: Evaluate) -> None:
    """Run the job."""
    score(options)


def main() -> None:
    """Run the command line."""
    run_job(Evaluate, work)


if __name__ == "__main__":
    main()
