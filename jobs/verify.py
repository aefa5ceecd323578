"""Job: prove that the masks of an output are whole."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

from jobs.options import Layout
from jobs.runtime import run_job, say
from pipelines import storage
from pipelines.errors import IncompleteError
from pipelines.masks.verdict import Kind, Verdict
from pipelines.masks.verify import verify
from pipelines.sources import Source, open_source

SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Prove that published masks are whole: every record once, every byte as it was written.

    Reads every part of the snapshot, and compares checksums, rows, records, counts and masks with
    the snapshot, the footer and the plan. Names lost and doubled units, damage, and whatever else
    lies in the output. Changes nothing. Ends with exit code 3 if anything but a note was found.
    """

    output: str
    """The --output of segment."""
    generation: str | None = None
    """Generation of which to verify the newest snapshot, or all; by default what is published."""
    input: str | None = None
    """The --input of segment: every record of it must then stand exactly once."""
    layout: Layout = "auto"
    """How the input is laid out; auto looks."""
    split: str | None = None
    """Split, where the layout has splits."""
    deep: bool = False
    """Decode and count every mask, not two of each part."""
    strict: bool = False
    """Fail if a key stands twice, too."""
    json: str | None = None
    """File or URI for figures and problems as JSON; it is overwritten."""


def work(options: Verify) -> None:
    """Run the job."""
    verdict = verify(
        options.output,
        generation=options.generation,
        source=_source(options),
        deep=options.deep,
        progress=say,
    )
    for problem in verdict.problems[:SHOWN]:
        say(f"{problem.kind}: {problem.where}: {problem.text}")
    if len(verdict.problems) > SHOWN:
        say(f"… and {len(verdict.problems) - SHOWN} more; --json has them")
    say(verdict.to_text())
    if options.json is not None:
        text = json.dumps(verdict.to_dict(), indent=1)
        storage.replace(storage.parse_uri(options.json), text.encode())
    if failures := verdict.failures(strict=options.strict):
        raise IncompleteError(_explain(verdict, failures))
    say("verified: nothing is lost, doubled, damaged or foreign")


def _source(options: Verify) -> Source | None:
    if options.input is None:
        return None
    return open_source(
        options.input, layout=options.layout, split=options.split, on_bad_shard="unit"
    )


def _explain(verdict: Verdict, failures: Counter[Kind]) -> str:
    counts = ", ".join(f"{count} {kind}" for kind, count in failures.items())
    first = next(problem for problem in verdict.problems if problem.kind in failures)
    return f"{verdict.output}: {counts}; the first: {first.where}: {first.text}"


def main() -> None:
    """Run the command line."""
    run_job(Verify, work)


if __name__ == "__main__":
    main()
