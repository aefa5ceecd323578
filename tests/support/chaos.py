"""Runs of the segment job under fire: processes killed at random, a bad network, a watching reader.

The job is the real one, `jobs/segment.py`, with the Ray cluster that it starts for itself. What is
killed is drawn from a printed seed: task workers, the model actor, Ray's own processes, the driver,
or all of them at once, which is the loss of the head. A `Reader` polls the store all the while.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psutil

ROOT = Path(__file__).parents[2]

Target = Literal["task worker", "model actor", "other Ray process", "driver", "head"]

_MODEL = "Infer"
_TASKS = ("fetch_and_decode", "encode_and_commit", "ray::IDLE", "segment_alone")


class Run:
    """One process of the segment job with everything that it started."""

    def __init__(self, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "jobs/segment.py", *arguments],
                cwd=ROOT,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self._family: dict[int, psutil.Process] = {}

    @property
    def running(self) -> bool:
        """Whether the job itself still runs."""
        return self.process.poll() is None

    def family(self) -> list[psutil.Process]:
        """The job's descendants, also those that have lost their parent since they were seen."""
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                self._family[process.pid] = process
        return [process for process in self._family.values() if process.is_running()]

    def victims(self, target: Target) -> list[psutil.Process]:
        """The processes of a kind that run now."""
        return [process for process in self.family() if _kind(process) == target]

    def kill(self, target: Target, rng: random.Random) -> bool:
        """SIGKILL one process of the kind; ``head`` is everything. False if there is none."""
        if target == "head":
            self.end()
            return True
        if target == "driver":
            self.family()  # seen before they are orphans, so that `end` can find them
            self.process.kill()
            self.process.wait()
            return True
        found = self.victims(target)
        if not found:
            return False
        with suppress(psutil.NoSuchProcess):
            rng.choice(sorted(found, key=lambda process: process.pid)).kill()
        return True

    def end(self) -> None:
        """SIGKILL the job and everything it started, and wait until all are gone."""
        family = self.family()
        for process in (*family, psutil.Process(self.process.pid)) if self.running else family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        psutil.wait_procs(family, timeout=20)


def _kind(process: psutil.Process) -> Target | None:
    try:
        command = " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return None
    if _MODEL in command:
        return "model actor"
    if any(name in command for name in _TASKS):
        return "task worker"
    if "ray::" in command or "gcs_server" in command or "raylet" in command:
        return "other Ray process"
    return None


class Chaos:
    """Kills by a seed, and counts what it killed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.kills: Counter[str] = Counter()

    def kill(self, run: Run, target: Target) -> bool:
        """Kill and count."""
        done = run.kill(target, self.rng)
        self.kills[target] += done
        return done

    def harass(
        self, run: Run, targets: list[Target], *, seconds: float, pause: tuple[float, float]
    ) -> None:
        """Kill processes of random kinds among ``targets`` for a while, or until the job ends."""
        until = time.monotonic() + seconds
        while run.running and time.monotonic() < until:
            time.sleep(self.rng.uniform(*pause))
            self.kill(run, self.rng.choice(targets))
