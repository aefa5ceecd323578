"""The pairs of a training worker, there when they are needed.

Ray Data starts anew at every pass over a dataset, which takes a second or more, and a shuffle
buffer has to fill before the first step: of a small data set that is longer than a GPU's steps. So
a thread goes on with the next epoch while the last pairs of the present one are used and the
network is validated. Two passes of Ray Data at a time could wait for each other's CPUs for ever;
it therefore begins when validation needs none any more, whose pairs are kept from its first one on.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from pipelines.ahead import Ahead
from pipelines.augment import every_plane
from pipelines.decoding import Pair
from pipelines.ingest import pairs_of
from pipelines.seeds import Drawn, generator

KEPT_BYTES = 1 << 30
"""Of one worker's validation pairs, decoded: 1,400 images of 500 x 375."""


def fetched(shard: Any) -> Iterator[Pair]:
    """Every pair of a worker's share of a dataset, once.

    Copies, so that Ray's object store can drop the block that a pair came in. Raises InputError
    with the text of the first error row.
    """
    for table in shard.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2):
        for pair in pairs_of(table):
            yield every_plane(pair, np.copy)


class TrainPairs:
    """A worker's training pairs, epoch after epoch, each time in another order.

    At most ``buffer`` and ``more`` pairs are in memory, of one epoch or of two. An epoch is fetched
    when it is allowed: `allow` says so, once for each.
    """

    def __init__(
        self, shard: Any, epochs: range, *, buffer: int, more: int, seed: int, rank: int
    ) -> None:
        self._buffer = buffer
        self._seed, self._rank = seed, rank
        self._allowed = threading.Semaphore(0)
        self._fetched = Ahead(self._all(shard, epochs), buffer + more)

    def _all(self, shard: Any, epochs: range) -> Iterator[Pair | None]:
        """The pairs of all epochs, None after each."""
        for _ in epochs:
            self._allowed.acquire()
            if self._fetched.closed:
                return
            yield from fetched(shard)
            yield None

    def allow(self) -> None:
        """One more epoch may be fetched."""
        self._allowed.release()

    def epoch(self, number: int) -> Iterator[Pair]:
        """The next epoch's pairs, each drawn at random from ``buffer`` of them.

        Epochs are taken to their ends and in their order; ``number`` is for the seed.
        """
        random = generator(self._seed, number, self._rank, Drawn.ORDER)
        held: list[Pair] = []
        more = True
        while True:
            while more and len(held) < self._buffer:
                pair = next(self._fetched)
                if pair is None:
                    more = False
                    self._fetched.free()
                else:
                    held.append(pair)
            if not held:
                return
            drawn = random.integers(len(held))
            held[drawn], held[-1] = held[-1], held[drawn]
            self._fetched.free()
            yield held.pop()

    def close(self) -> None:
        """Nothing more is fetched."""
        self._fetched.close()
        self.allow()


class KeptPairs:
    """A worker's validation pairs, kept in memory from the first pass on if they are not too many.

    Ray Data begins a pass when all workers ask for it, so all keep theirs or all `forget` them.
    """

    def __init__(self, shard: Any, most_bytes: int = KEPT_BYTES) -> None:
        self._shard = shard
        self._room = most_bytes
        self._pairs: list[Pair] = []
        self.kept = False
        """Whether a pass has left them all in memory, so that the next one fetches nothing."""

    def forget(self) -> None:
        """Every further pass fetches all pairs."""
        self._pairs.clear()
        self._room, self.kept = -1, False

    def __iter__(self) -> Iterator[Pair]:
        if self.kept:
            yield from self._pairs
            return
        for pair in fetched(self._shard):
            self._room -= pair.nbytes
            if self._room >= 0:
                self._pairs.append(pair)
            else:
                self._pairs.clear()
            yield pair
        self.kept = self._room >= 0
