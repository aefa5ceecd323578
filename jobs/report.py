"""Job: score masks against labels, and show them."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.evaluate import Evaluate
from jobs.runtime import ray_session, run_job, say
from pipelines.sources import open_source


@dataclass(frozen=True, kw_only=True)
class Report(Evaluate):
    """Do what evaluate does, and show it: report.html and panel.png beside the tables.

    panel.png has input, label and predicted mask side by side, for the worst, the median and the
    best images; report.html has the scores, every class, the confusion and the same images.
    """


def work(options: Report) -> None:
    """Run the job."""
    labels = open_source(options.labels, layout=options.layout, split=options.split)
    labels.refuse_inside(options.output)
    with ray_session():
        from pipelines.evaluation import evaluate  # noqa: PLC0415  (Ray, too)
        from pipelines.report import write_report  # noqa: PLC0415
        from pipelines.score_tables import write_tables  # noqa: PLC0415

        evaluation = evaluate(options.masks, labels, allow_missing=options.allow_missing)
        write_tables(evaluation, options.output)
        written = write_report(evaluation, labels, options.output)
    say(evaluation.to_text())
    for name, uri in written.items():
        say(f"{name}: {uri}")


def main() -> None:
    """Run the command line."""
    run_job(Report, work)


if __name__ == "__main__":
    main()
