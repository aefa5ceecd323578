"""The paper's solver for any torch optimizer: groups of parameters, and another number of images.

Caffe's update is ``v = m v + lr lr_mult (g + decay decay_mult w); w -= v`` with ``g`` the mean over
``iter_size`` passes. At a constant rate, which all nets of the reference have, torch's SGD is the
same; where the rate moves, Caffe's velocity keeps the rates of its past and torch's does not.
"""

from __future__ import annotations

from typing import Any

from torch import nn

PLAIN_BIASES = ("caffenet", "alexnet")
"""Backbones whose own biases learn like weights: ``voc-fcn-alexnet/net.py`` gives their layers no
multipliers, only its score layer."""


def parameter_groups(
    network: nn.Module, lr: float, weight_decay: float, *, only_scores: bool = False
) -> list[dict[str, Any]]:
    """Weights at ``lr`` with decay, biases at twice ``lr`` without (``lr_mult: 2, decay_mult: 0``).

    With ``only_scores`` that holds for the biases of score layers, and others are like weights. The
    fixed upsamplers are constants and in no group; a parameter that is frozen is left out. Works
    on a network wrapped for data-parallel training too. Source: ``voc-fcn32s/net.py``.
    """
    weights: list[nn.Parameter] = []
    biases: list[nn.Parameter] = []
    for name, value in network.named_parameters():
        layer, _, kind = name.removeprefix("module.").rpartition(".")
        is_fast = kind == "bias" and (layer.startswith("score") or not only_scores)
        if value.requires_grad:
            (biases if is_fast else weights).append(value)
    return [
        {"params": weights, "lr": lr, "weight_decay": weight_decay},
        {"params": biases, "lr": 2 * lr, "weight_decay": 0.0},
    ]


def retimed(lr: float, momentum: float, ratio: float) -> tuple[float, float]:
    """The rate and momentum with which steps of ``ratio`` times the images keep a recipe's course.

    The loss being a mean over a step's images, an image moves the weights by
    ``lr / (1 - momentum)`` of its gradient by the images of the step in the long run, and the
    velocity forgets at ``momentum`` a step. Momentum ``p' = p ** ratio`` forgets as much per image
    as before (the paper's own equivalence of heavy learning and batches: p ** (1 / images) is what
    counts), and ``lr' = ratio lr (1 - p') / (1 - p)`` moves as far. Then the displacement that an
    image has caused is the recipe's after every step, as if the images of a step had come at the
    first of the recipe's ``ratio`` steps; decay per image stays, too. Keeping p with
    ``ratio lr`` would also move as far at last, but answer ``ratio`` times later.
    """
    slowed = momentum**ratio
    return ratio * lr * (1 - slowed) / (1 - momentum), slowed
