"""Jobs, run by benchmarks as a user runs them, and the store that they work on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.seaweed import Seaweed

ROOT = Path(__file__).parents[1]


def run(job: str, *arguments: object, endpoint: str | None = None) -> None:
    """Run a job. Raises RuntimeError with all that it said if it fails."""
    environment = {**os.environ, **({"AWS_ENDPOINT_URL": endpoint} if endpoint else {})}
    command = [sys.executable, f"jobs/{job}.py", *map(str, arguments)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)


@contextmanager
def serving() -> Iterator[Seaweed]:
    """A store, and the environment in which every process finds it."""
    server = Seaweed()
    os.environ.pop("AWS_ENDPOINT_URL_S3", None)  # it would win over ours
    os.environ.update(server.environment)
    try:
        yield server
    finally:
        server.stop()
