"""Options that cannot be meant are refused before anything runs."""

from __future__ import annotations

import math

import pytest
import torch

from pipelines.errors import InputError
from pipelines.seeds import Drawn, generator, seed_torch
from pipelines.train_settings import Solver


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("weight_decay", -1e-9, "0 or above and finite, got -1e-09"),
        ("weight_decay", math.nan, "0 or above and finite, got nan"),
        ("weight_decay", math.inf, "0 or above and finite, got inf"),
        ("lr", math.inf, "above 0 and finite, got inf"),
        ("lr", math.nan, "above 0 and finite, got nan"),
        ("lr", 0.0, "above 0 and finite, got 0.0"),
        ("sampling", math.nan, "got nan"),
        ("momentum", math.nan, "got nan"),
    ],
)
def test_rates_and_decays_that_end_in_no_network_are_refused(name, value, said):
    with pytest.raises(InputError, match=rf"^solver {name} .*{said}$"):
        Solver(**{name: value})


def test_no_decay_is_allowed():
    assert Solver(weight_decay=0.0).weight_decay == 0


@pytest.mark.parametrize("seed", [-1, 2**63, -(2**63), 10**30])
def test_seeds_that_generators_do_not_take_are_refused(seed):
    with pytest.raises(InputError, match=rf"solver seed must be in \[0, 2\*\*63\), got {seed}$"):
        Solver(seed=seed)


@pytest.mark.parametrize("seed", [0, 1337, 2**63 - 1])
def test_seeds_that_are_allowed_are_taken_by_every_generator(seed):
    assert Solver(seed=seed).seed == seed
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # of the first weights
        seed_torch(seed, 3, 1)
    generator(seed, 3, 1, Drawn.ORDER)
