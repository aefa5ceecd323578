"""A whole night under siege: rounds of the job with kills and a bad network, then the bill.

Every round starts the same command, one process of it or two that race, kills parts of it at random
moments and at last the whole of it. When enough was killed, the command is run until it ends by
itself. Then every input record must stand exactly once, with the mask that it has in peace.
"""

from __future__ import annotations

import io
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from fcn_model import load_segmenter
from tests.support.chaos import Chaos, Run, Target
from tests.support.proxy import FaultProxy
from tests.support.seaweed import Seaweed
from tests.support.tiny import save_checkpoint
from tests.support.watcher import Watcher

ARRIVALS = 40
"""Images that come when all are done and not enough was killed."""

SMALL: list[Target] = ["task worker", "task worker", "model actor", "other Ray process"]
LARGE: list[Target] = ["driver", "head"]


@dataclass(frozen=True, kw_only=True)
class Round:
    """One start of the command, or several at once, and how it is harassed until all is killed."""

    runs: int = 1
    early: bool = False
    """Harassed from its start, and not from its first part on."""
    seconds: float
    pause: tuple[float, float] = (0.3, 1.0)
    """Seconds between two kills, drawn from this range."""


@dataclass
class Bill:
    """What was done to the job, and what it cost. The figures of the second group must be 0."""

    seed: int
    records: int = 0
    rounds: int = 0
    cut_off: int = 0
    """Rounds that were killed when some of their parts stood, and some did not."""
    kills: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    polls: int = 0
    seconds: float = 0.0

    lost: int = 0
    doubled: int = 0
    unexpected: int = 0
    wrong: int = 0
    changed: int = 0
    vanished: int = 0
    unreadable: int = 0

    @property
    def damage(self) -> dict[str, int]:
        """What must not have happened, and how often it did."""
        names = ("lost", "doubled", "unexpected", "wrong", "changed", "vanished", "unreadable")
        return {name: getattr(self, name) for name in names}

    def lines(self) -> list[str]:
        """The bill as text."""
        return [
            f"seed {self.seed}: {self.records} records, {self.rounds} starts, {self.seconds:.0f} s",
            f"rounds cut off in mid-work: {self.cut_off}",
            f"polls by a reader: {self.polls}",
            f"killed: {self.kills.total()} ({_listed(self.kills)})",
            f"network faults: {self.faults.total()} ({_listed(self.faults)})",
            ", ".join(f"{name} {count}" for name, count in self.damage.items()),
        ]


class Siege:
    """One archive, one output, and everything that happens to the job between them."""

    def __init__(
        self, server: Seaweed, folder: Path, *, seed: int, images: int, rate: float = 0.1
    ) -> None:
        self.server, self.folder, self.rate = server, folder, rate
        self.chaos = Chaos(seed)
        self.bill = Bill(seed)
        self.root = server.uri("siege")
        self.client = server.client()
        self._prefix = self.root.removeprefix(f"s3://{server.bucket}/")
        self._logs = 0
        save_checkpoint(folder / "checkpoint", seed=1)
        self.expected: dict[str, np.ndarray | None] = {}
        self._segmenter = load_segmenter(folder / "checkpoint")
        self._fill(images)

    def run(self, *, kills: int, plan: Sequence[Round] = (), final_seconds: float = 600) -> Bill:
        """Rounds until enough was killed, then the same command until it ends with 0.

        The rounds of ``plan`` come first, others are drawn.
        """
        started = time.monotonic()
        proxy = FaultProxy(self.server.endpoint, seed=self.bill.seed, rate=self.rate)
        watcher = Watcher(self.client, self.server.bucket, f"{self._prefix}/out")
        with proxy, watcher:
            planned = list(plan)
            while planned or self.chaos.kills.total() < kills:
                if len(watcher.counts()) == len(self.expected):
                    self._fill(ARRIVALS)  # there must be something to kill
                self._round(planned.pop(0) if planned else self._drawn(), proxy, watcher)
            self._finish(proxy, final_seconds)
        bill = self.bill
        bill.kills, bill.faults, bill.polls = self.chaos.kills, proxy.injected, watcher.polls
        bill.changed, bill.vanished = len(watcher.changed), len(watcher.vanished)
        bill.unreadable = len(watcher.unreadable)
        counts = watcher.counts()
        bill.lost = sum(counts[uri] == 0 for uri in self.expected)
        bill.doubled = sum(count - 1 for count in counts.values())
        bill.unexpected = len(counts.keys() - self.expected.keys())
        bill.wrong = self._wrong(watcher)
        bill.seconds = time.monotonic() - started
        return bill

    def _drawn(self) -> Round:
        rng = self.chaos.rng
        return Round(
            runs=2 if rng.random() < 1 / 3 else 1,
            early=rng.random() < 1 / 4,
            seconds=rng.uniform(1, 5),
        )

    def _round(self, this: Round, proxy: FaultProxy, watcher: Watcher) -> None:
        had = len(watcher.rows)
        runs = [self._start(proxy) for _ in range(this.runs)]
        try:
            until = time.monotonic() + 120
            while all(run.running for run in runs) and time.monotonic() < until:
                if this.early or len(watcher.rows) > had:
                    break
                time.sleep(0.1)
            for run in runs:
                self.chaos.harass(run, SMALL, seconds=this.seconds, pause=this.pause)
            for run in runs:
                if run.running:
                    self.chaos.kill(run, self.chaos.rng.choice(LARGE))
        finally:
            for run in runs:
                run.end()
        polls = watcher.polls
        # The last of them begins when nothing writes any more.
        while watcher.is_alive() and watcher.polls < polls + 2:
            time.sleep(0.05)
        self.bill.cut_off += len(watcher.rows) > had and len(watcher.counts()) < len(self.expected)

    def _finish(self, proxy: FaultProxy, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            run = self._start(proxy)
            try:
                code = run.process.wait(max(1, until - time.monotonic()))
            finally:
                run.end()
            if code == 0:
                return
        raise AssertionError(f"the job did not end well in {seconds} s: {run.log.read_text()}")

    def _start(self, proxy: FaultProxy) -> Run:
        self._logs += 1
        self.bill.rounds += 1
        environment = {**os.environ, "AWS_ENDPOINT_URL": proxy.endpoint}
        arguments = ["--input", f"{self.root}/archive", "--output", f"{self.root}/out"]
        arguments += ["--checkpoint", str(self.folder / "checkpoint"), "--unit-records", "2"]
        return Run(arguments, environment, self.folder / f"{self._logs}.log")

    def _fill(self, images: int) -> None:
        """Upload images; by URI the mask that each has in peace, None for broken ones."""
        for index in range(len(self.expected), len(self.expected) + images):
            rng = np.random.default_rng((self.bill.seed, index))
            key = f"{self._prefix}/archive/{index:04d}.png"
            colours = rng.integers(0, 256, (2, 3, 3), dtype=np.uint8)
            pixels = np.kron(colours, np.ones((16, 16, 1), np.uint8))
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            broken = index % 23 == 7
            body = file.getvalue()[: 60 if broken else None]
            self.client.put_object(Bucket=self.server.bucket, Key=key, Body=body)
            uri = f"s3://{self.server.bucket}/{key}"
            self.expected[uri] = None if broken else self._segmenter(pixels)
        self.bill.records = len(self.expected)

    def _wrong(self, watcher: Watcher) -> int:
        """Rows whose mask or status is not what it is in peace."""
        wrong = 0
        for key in watcher.rows:
            body = self.client.get_object(Bucket=self.server.bucket, Key=key)["Body"].read()
            for row in pq.read_table(io.BytesIO(body)).to_pylist():
                mask = self.expected.get(row["uri"])
                if mask is None:
                    wrong += row["status"] != "error"
                elif row["status"] != "ok":
                    wrong += 1
                else:
                    stored = np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"])))
                    wrong += not np.array_equal(stored, mask)
        return wrong


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"
