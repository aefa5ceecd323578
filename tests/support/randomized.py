"""Networks of which every parameter is random, upsampling kernels and scores included."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def randomized(network: Network, seed: int = 0) -> Network:
    """``network`` with new parameters that keep the scale of activations, evaluating."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            spread = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.normal_(0, spread, generator=generator)
    return network.eval()
