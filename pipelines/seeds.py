"""A stream of random numbers for each thing that training draws, all from the run's one seed.

Streams of an epoch do not depend on the epochs before it, so that a run that goes on draws what it
would have drawn without the stop.

The same seed, data, options and number of workers give every step the same images in the same
order: units come in the seed's order, however long each takes to decode (`EveryRow`). Not promised
is that another number of workers sees the same steps, that a run that goes on sees units in the
order of one that was not stopped (Ray seeds each pass by its number in the job), and that sums
round alike on other devices, other numbers of threads, or in GPU kernels that add in any order.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch


class Drawn(IntEnum):
    """What a stream is for. None is 0, which numpy does not tell from nothing."""

    ORDER = 1
    VIEWS = 2
    DROPOUT = 3


def generator(seed: int, epoch: int, rank: int, drawn: Drawn) -> np.random.Generator:
    """numpy's, for one epoch of one worker."""
    return np.random.default_rng([seed, epoch, rank, drawn])


def seed_torch(seed: int, epoch: int, rank: int) -> None:
    """Let torch's own state, from which dropout draws, begin an epoch of one worker."""
    torch.manual_seed(int(generator(seed, epoch, rank, Drawn.DROPOUT).integers(2**63)))
