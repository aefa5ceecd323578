"""Each epoch gives every pair once, no more are held than allowed, and passes wait for leave."""

from __future__ import annotations

import threading
import time

import numpy as np
import pyarrow as pa
import pytest

from pipelines.decoding import Pair
from pipelines.errors import InputError
from pipelines.ingest import ROWS, rows_table
from pipelines.train_pairs import KeptPairs, TrainPairs

LONG = 60
PAIRS = [
    Pair(f"{index:02d}", np.full((2, 3, 3), index, np.uint8), np.full((2, 3), index, np.uint8))
    for index in range(40)
]
KEYS = sorted(pair.key for pair in PAIRS)


class Shard:
    """What Ray Train gives a worker: its rows in blocks, here in order. Notes what was fetched."""

    def __init__(self, pairs=PAIRS, failing=False):
        self.pairs, self.failing = pairs, failing
        self.passes = 0
        self.blocks = 0

    def iter_batches(self, **_):
        self.passes += 1
        for start in range(0, len(self.pairs), 4):
            self.blocks += 1
            yield rows_table(self.pairs[start : start + 4])
        if self.failing:
            yield pa.Table.from_pylist([{"error": "image 7 has no label"}], schema=ROWS)


def wait_until(condition):
    until = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("buffer", [1, 7, 40, 1000])
def test_each_epoch_gives_every_pair_once_and_in_its_own_order(buffer):
    orders = []
    for _ in range(2):  # the same seed, the same orders
        training = TrainPairs(Shard(), range(3, 6), buffer=buffer, more=2, seed=1, rank=0)
        for epoch in range(3, 6):
            training.allow()
            pairs = list(training.epoch(epoch))
            orders.append([pair.key for pair in pairs])
            for pair in pairs:
                assert (pair.image == int(pair.key)).all()
                assert (pair.label == int(pair.key)).all()
                assert pair.image.flags.owndata  # Ray's block is not kept
    assert all(sorted(order) == KEYS for order in orders)
    assert orders[:3] == orders[3:]
    if buffer > 1:
        assert len({tuple(order) for order in orders}) == 3
    else:
        assert orders[0] == KEYS


def test_a_pair_comes_from_the_next_ones_of_the_buffer():
    training = TrainPairs(Shard(), range(1), buffer=10, more=2, seed=5, rank=0)
    training.allow()
    keys = [int(pair.key) for pair in training.epoch(0)]
    assert all(key < place + 10 for place, key in enumerate(keys))
    assert max(place - key for place, key in enumerate(keys)) > 10  # some wait long


def test_the_next_epoch_is_fetched_while_the_last_pairs_of_one_are_used_if_allowed():
    shard = Shard()
    training = TrainPairs(shard, range(3), buffer=16, more=2, seed=1, rank=0)
    training.allow()
    first = training.epoch(0)
    taken = [next(first) for _ in range(26)]
    time.sleep(0.2)
    assert (shard.passes, shard.blocks) == (1, 10)  # room for two, but no leave
    training.allow()
    wait_until(lambda: shard.passes == 2)
    taken += first
    assert sorted(pair.key for pair in taken) == KEYS
    wait_until(lambda: shard.blocks == 10 + 5)  # 18 pairs, and the block that the last came in
    time.sleep(0.2)
    assert shard.blocks == 15
    assert sorted(pair.key for pair in training.epoch(1)) == KEYS
    training.close()


def test_an_error_row_is_raised_as_it_says():
    training = TrainPairs(
        Shard(PAIRS[:5], failing=True), range(2), buffer=2, more=1, seed=0, rank=0
    )
    training.allow()
    with pytest.raises(InputError, match="image 7 has no label"):
        list(training.epoch(0))


def test_closing_ends_the_thread_wherever_it_waits():
    for allowed in range(2):
        before, shard = set(threading.enumerate()), Shard()
        training = TrainPairs(shard, range(2), buffer=2, more=1, seed=0, rank=0)
        for _ in range(allowed):
            training.allow()
        training.close()
        for thread in set(threading.enumerate()) - before:
            thread.join(LONG)
            assert not thread.is_alive()
        assert shard.passes <= allowed  # closing begins no pass


def test_pairs_that_are_kept_are_fetched_once():
    shard = Shard()
    pairs = KeptPairs(shard, most_bytes=40 * 24)
    for _ in range(3):
        assert [pair.key for pair in pairs] == KEYS
        assert pairs.kept
    assert shard.passes == 1


def test_pairs_that_are_too_many_are_fetched_each_time():
    shard = Shard()
    pairs = KeptPairs(shard, most_bytes=40 * 24 - 1)
    for _ in range(3):
        assert [pair.key for pair in pairs] == KEYS
        assert not pairs.kept
    assert shard.passes == 3


def test_pairs_are_forgotten_where_other_workers_could_not_keep_theirs():
    shard = Shard()
    pairs = KeptPairs(shard)
    list(pairs)
    pairs.forget()
    for _ in range(2):
        assert [pair.key for pair in pairs] == KEYS
        assert not pairs.kept
    assert shard.passes == 3
