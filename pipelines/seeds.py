"""A stream of random numbers for each thing that training draws, all from the run's one seed.

Streams of an epoch do not depend on the epochs before it, so that a run that goes on draws what it
would have drawn without the stop.
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
