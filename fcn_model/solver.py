"""The paper's parameter groups, for any torch optimizer."""

from __future__ import annotations

from typing import Any

from torch import nn


def parameter_groups(network: nn.Module, lr: float, weight_decay: float) -> list[dict[str, Any]]:
    """Weights at ``lr`` with decay, biases at twice ``lr`` without (``lr_mult: 2, decay_mult: 0``).

    The upsamplers are constants and in no group; a parameter that is frozen is left out. Works
    on a network wrapped for data-parallel training too. Source: ``voc-fcn32s/net.py``.
    """
    trained = [(name, value) for name, value in network.named_parameters() if value.requires_grad]
    biases = [value for name, value in trained if name.split(".")[-1] == "bias"]
    weights = [value for name, value in trained if name.split(".")[-1] != "bias"]
    return [
        {"params": weights, "lr": lr, "weight_decay": weight_decay},
        {"params": biases, "lr": 2 * lr, "weight_decay": 0.0},
    ]
