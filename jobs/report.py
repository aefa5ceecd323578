"""Job: score masks against labels, and show them."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.evaluate import Evaluate, score
from jobs.runtime import run_job, say


@dataclass(frozen=True, kw_only=True)
class Report(Evaluate):
    """Do what evaluate does, and show it: report.html and panel.png beside the tables.

    panel.png has input, label and predicted mask side by side, for the worst, the median and the
    best images; report.html has the scores, every class, the confusion and the same images.
    """


def work(options: Report) -> None:
    """Run the job."""
    evaluation, labels = score(options)
    from pipelines.report import write_report  # noqa: PLC0415  (imports Ray)

    for name, uri in write_report(evaluation, labels, options.output).items():
        say(f"{name}: {uri}")


def main() -> None:
    """Run the command line."""
    run_job(Report, work)


if __name__ == "__main__":
    main()
