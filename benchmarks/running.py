"""Jobs, run by benchmarks as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
