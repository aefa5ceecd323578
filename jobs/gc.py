"""Job: remove what no live snapshot of an output needs."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.runtime import run_job, say
from pipelines.masks.retention import Keep
from pipelines.masks.sweep import sweep


@dataclass(frozen=True, kw_only=True)
class Gc:
    """Show what no live snapshot needs any more, and with --remove delete it.

    These are parts that others have replaced, snapshots beyond the last ones, generations beyond
    the last published ones, and what killed writers left. What is published stays, and so does
    everything that is younger than the grace. Objects that are none of ours are only named.
    """

    output: str
    """The --output of segment."""
    remove: bool = False
    """Delete it; by default it is only shown."""
    keep: Keep = field(default_factory=Keep)


def work(options: Gc) -> None:
    """Run the job."""
    swept = sweep(options.output, options.keep, remove=options.remove, progress=say)
    say(swept.to_text())
    if swept.doomed and not swept.removed:
        say("nothing was removed; --remove does it")


def main() -> None:
    """Run the command line."""
    run_job(Gc, work)


if __name__ == "__main__":
    main()
