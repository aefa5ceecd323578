"""Narrow networks whose every parameter matters: random scores and biases instead of zeros."""

from __future__ import annotations

import torch

from fcn_model import FCN, NetworkSpec, build
from fcn_model.spec import Head


def narrow_spec(head: Head = "fcn8s", num_classes: int = 5) -> NetworkSpec:
    """The smallest VGG16 layout that still has several channels everywhere."""
    return NetworkSpec(num_classes=num_classes, head=head, width=1 / 16, fc_width=16)


def random_network(
    head: Head = "fcn8s", *, num_classes: int = 5, seed: int = 0, dtype: torch.dtype = torch.float32
) -> FCN:
    """A narrow network in evaluation mode whose masks hold several classes."""
    network = build(narrow_spec(head, num_classes), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("score"):
                parameter.normal_(0, 1, generator=generator)
            elif name.endswith(".bias"):
                parameter.normal_(0, 0.1, generator=generator)
    return network.to(dtype).eval()
