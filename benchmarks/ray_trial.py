"""One archive, one output and the segment job between them: what `ray_faults` does its harm to."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
from PIL import Image

from fcn_model import load_segmenter
from pipelines.masks.reader import open_masks
from pipelines.masks.verify import verify
from pipelines.sources import open_source
from tests.support import poison
from tests.support.chaos import Run
from tests.support.tiny import save_checkpoint

IMAGES = 40
WAIT_SECONDS = 300.0
"""For the first parts, or for a job to end."""

HUNG = 124
"""In place of the exit code of a job that did not end."""


@dataclass
class Bill:
    """What was done to the job, and what it cost."""

    injected: str
    """What was done, in words."""
    times: int
    """How often; a trial in which nothing was done proves nothing."""
    codes: list[int] = field(default_factory=list)
    """Exit codes of the runs, in order."""
    note: str = ""
    records: int = 0
    lost: int = 0
    """Images without a published row, or with one that is not what it is in peace."""
    doubled: int = 0
    wrong: int = 0
    """Failures that a verification of the output finds."""
    seconds: float = 0.0

    @property
    def good(self) -> bool:
        """Whether something was done, and nothing came of it but lost time."""
        ended_well = self.codes[-1] == 0 and HUNG not in self.codes
        return self.times > 0 and ended_well and not (self.lost or self.doubled or self.wrong)

    def line(self, name: str) -> str:
        """The bill in one line."""
        codes = " then ".join(map(str, self.codes))
        note = f"; {self.note}" if self.note else ""
        return (
            f"{name}: {self.injected} ({self.times} times), {self.records} records, {self.lost} "
            f"lost, {self.doubled} doubled, {self.wrong} wrong, exit {codes}, "
            f"{self.seconds:.1f} s{note}"
        )


class Trial:
    """An archive of small images in a folder, units of two of them. A context manager.

    Whatever was started with it is ended with it, and everything it wrote is removed.
    """

    def __init__(self, *, size: tuple[int, int] = (24, 32)) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fcnf"))  # short: Ray's sockets lie in it
        self.sessions = self.folder / "ray"
        self.output = self.folder / "out"
        self._stack = ExitStack()
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        # Also for clusters that are started here: Ray leaves their address where others look.
        self._stack.callback(os.environ.pop, "RAY_TMPDIR")
        self.sessions.mkdir()
        os.environ["RAY_TMPDIR"] = str(self.sessions)
        self._runs: list[Run] = []
        save_checkpoint(self.folder / "checkpoint", seed=1)
        self.expected = self._fill(size)
        self._started = time.monotonic()

    def __enter__(self) -> Trial:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def poison(self, key: str, stage: str, act: str, kind: str) -> dict[str, str]:
        """Let an image harm whoever works on it, until it is an error row of a kind.

        Returns the environment in which it does; see `tests.support.poison`.
        """
        path = self.folder / "in" / key
        with Image.open(path) as image:
            pixels = np.asarray(image)
        Image.fromarray(poison.poisoned(pixels, stage, act)).save(path)
        self.expected[key] = kind
        return {"PYTHONPATH": str(poison.install(self.folder / "hook"))}

    def start(self, environment: Mapping[str, str] | None = None, *options: str) -> Run:
        """Start the job, which starts a Ray of its own unless the environment names one."""
        variables = {**os.environ, **(environment or {})}
        arguments = ["--input", str(self.folder / "in"), "--output", str(self.output)]
        arguments += ["--checkpoint", str(self.folder / "checkpoint"), "--unit-records", "2"]
        log = self.folder / f"{len(self._runs)}.log"
        run = Run([*arguments, *options], variables, log)
        self._stack.callback(run.end)
        self._runs.append(run)
        return run

    def wait_for_parts(self, run: Run, count: int) -> int:
        """Wait until so many parts are there; how many there are."""
        until = time.monotonic() + WAIT_SECONDS
        while len(self.parts()) < count:
            if not run.running or time.monotonic() > until:
                raise RuntimeError(f"{count} parts did not come:\n{run.log.read_text()}")
            run.family()  # seen while they have a parent
            time.sleep(0.05)
        return len(self.parts())

    def end(self, run: Run, seconds: float = WAIT_SECONDS) -> int:
        """Wait for the job's end; its exit code, or HUNG."""
        try:
            return run.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return HUNG
        finally:
            run.end()

    def finish(self, bill: Bill, first: Run | None = None) -> Bill:
        """Wait for ``first``, repeat the command until it ends well, and make up the bill."""
        run = first
        while len(bill.codes) < 4 and (not bill.codes or bill.codes[-1]):
            run = run or self.start()
            bill.codes.append(self.end(run))
            said = run.log.read_text().strip().splitlines()
            if bill.codes[-1] and said:
                bill.note += f"[{said[-1][:300]}] "
            run = None
        return self.settle(bill)

    def settle(self, bill: Bill) -> Bill:
        """Fill in what stands in the output."""
        bill.seconds = time.monotonic() - self._started
        counts: Counter[str] = Counter()
        for part in self.parts():
            counts.update(pq.read_table(part, columns=["key"])["key"].to_pylist())
        bill.records = counts.total()
        bill.doubled = counts.total() - len(counts)
        rows = {row["key"]: row for row in open_masks(str(self.output)).to_table().to_pylist()}
        bill.lost = sum(not _is(rows.get(key), mask) for key, mask in self.expected.items())
        source = open_source(str(self.folder / "in"))
        found = verify(str(self.output), source=source, deep=True, progress=lambda _text: None)
        bill.wrong = found.failures().total()
        return bill

    def parts(self) -> list[Path]:
        """The parts that stand."""
        return sorted(self.output.glob("data/gen=*/part-*.parquet"))

    def logged(self, *texts: str) -> Counter[str]:
        """How many lines of Ray's logs hold each text."""
        counts: Counter[str] = Counter()
        for path in self.sessions.glob("**/session_2*/logs/*"):
            if path.is_file():
                for line in path.read_text(errors="replace").splitlines():
                    counts.update(text for text in texts if text in line)
        return counts

    def _fill(self, size: tuple[int, int]) -> dict[str, np.ndarray | str]:
        segmenter = load_segmenter(self.folder / "checkpoint")
        rng = np.random.default_rng(0)
        expected: dict[str, np.ndarray | str] = {}
        (self.folder / "in").mkdir()
        for index in range(IMAGES):
            key = f"{index:02d}.png"
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(self.folder / "in" / key)
            expected[key] = segmenter(pixels)
        return expected


def _is(row: dict[str, Any] | None, expected: np.ndarray | str) -> bool:
    """Whether a row has the expected mask, or is an error row of the expected kind."""
    if row is None or row["error_kind"] or isinstance(expected, str):
        return row is not None and row["error_kind"] == expected
    return np.array_equal(np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"]))), expected)


def alive(processes: list[psutil.Process], seconds: float) -> int:
    """How many of some processes still run after a while."""
    _, left = psutil.wait_procs(processes, timeout=seconds)
    return len(left)
