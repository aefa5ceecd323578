"""Job: the published masks as a Delta table."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.runtime import run_job, say
from pipelines.masks.delta import export_delta


@dataclass(frozen=True, kw_only=True)
class Export:
    """Make an output a Delta table of its published masks, for query engines; nothing is copied.

    The table is the output itself: its log, _delta_log, lists the files that are there anyway. Run
    it after every night; it adds what is new, removes what was replaced, and follows a roll back.
    Needs the extra delta: pip install -e '.[delta]'.
    """

    output: str
    """The --output of segment."""


def work(options: Export) -> None:
    """Run the job."""
    table = export_delta(options.output)
    if table.added or table.removed:
        change = f"{table.added} files added, {table.removed} removed"
    else:
        change = "nothing to do"
    say(
        f"{change}: Delta table {options.output}, version {table.version}, has the {table.files} "
        f"files of snapshot {table.sequence} of generation {table.generation}"
    )


def main() -> None:
    """Run the command line."""
    run_job(Export, work)


if __name__ == "__main__":
    main()
