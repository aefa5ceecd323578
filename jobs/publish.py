"""Job: show what is published, and publish another snapshot."""

from __future__ import annotations

import json
from dataclasses import dataclass

from jobs.runtime import run_job, say
from pipelines import storage
from pipelines.errors import InputError, NotFoundError
from pipelines.masks import head, snapshots
from pipelines.masks.head import Head


@dataclass(frozen=True, kw_only=True)
class Publish:
    """Show what readers see of an output, and every snapshot that they could see.

    With --generation or --sequence, publish that snapshot: to roll back a night or a model, or to
    publish what a night kept back. Nothing is deleted or segmented by that.
    """

    output: str
    """The --output of segment."""
    generation: str | None = None
    """Generation to publish; its newest snapshot, if --sequence names no other."""
    sequence: int | None = None
    """Snapshot to publish; of the published generation, if --generation names no other."""
    allow_missing: bool = False
    """Publish it though it lacks units that readers see now."""
    hold: bool = False
    """Nights leave it published, until another is published by hand; by default the next night
    goes on to its own snapshot."""


def work(options: Publish) -> None:
    """Run the job."""
    output = storage.parse_uri(options.output)
    numbers = snapshots.numbers_by_generation(output)
    if not numbers:
        raise NotFoundError(
            f"{output} has no snapshots; give the --output of jobs/segment.py, of which a night "
            "has ended"
        )
    if options.generation or options.sequence:
        _publish(output, options, numbers)
    elif options.hold or options.allow_missing:
        raise InputError("--hold and --allow-missing need --generation or --sequence")
    say(describe(output, numbers))


def describe(output: str, numbers: dict[str, list[int]]) -> str:
    """All snapshots as a table for a terminal, newest first, the published one with a star."""
    published = head.read(output)
    held = ", held there by hand" if published and published.held else ""
    lines = [f"published: {published or 'nothing yet'}{held}"]
    for generation, sequences in numbers.items():
        lines += ["", f"generation {generation} {_made_of(output, generation)}"]
        lines.append("  snapshot   units    records  error rows  made                       by run")
        for sequence in reversed(sequences):
            row = snapshots.load_summary(output, generation, sequence)
            here = published and (generation, sequence) == (
                published.generation,
                published.sequence,
            )
            lines.append(
                f"{'*' if here else ' '} {row.sequence:8} {row.units:7} {row.records:10} "
                f"{row.error_rows:11}  {row.created_at:25}  {row.created_by}"
            )
    return "\n".join(lines)


def _publish(output: str, options: Publish, numbers: dict[str, list[int]]) -> None:
    now = head.read(output)
    generation = options.generation or (now and now.generation)
    if not generation:
        raise InputError(
            f"nothing is published in {output} yet, so --sequence needs a --generation; there are "
            f"{', '.join(numbers)}"
        )
    if generation not in numbers:
        raise NotFoundError(
            f"{output} has no snapshot of generation {generation}; there are some of "
            f"{', '.join(numbers)}"
        )
    sequence = options.sequence or numbers[generation][-1]
    to = Head(generation=generation, sequence=sequence, held=options.hold)
    missing = head.publish(output, to, allow_missing=options.allow_missing)
    lost = f"; readers lose {len(missing)} units by it" if missing else ""
    say(f"{to} is published now, before it was {now or 'nothing'}{lost}\n")


def _made_of(output: str, generation: str) -> str:
    """The network and precision of a generation, as its record says, where there is one."""
    try:
        record = json.loads(
            storage.read_bytes(storage.join(output, "_fcn", "gen", f"{generation}.json"))
        )
    except NotFoundError:
        return ""
    return f"({record['network']}, {record['precision']}, model {record['model'][:12]})"


def main() -> None:
    """Run the command line."""
    run_job(Publish, work)


if __name__ == "__main__":
    main()
