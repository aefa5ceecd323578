"""Narrow networks whose every parameter matters: random scores and biases instead of zeros."""

from __future__ import annotations

from typing import Any

import torch

from fcn_model import FCN, NetworkSpec, build
from fcn_model.spec import BackboneName, Head


def narrow_spec(
    head: Head = "fcn8s", num_classes: int = 5, backbone: BackboneName = "vgg16", **more: Any
) -> NetworkSpec:
    """The smallest layout that still has several channels everywhere; ``more`` are its fields."""
    fc = {} if "googlenet" in backbone else {"fc_width": 16}
    fields = {"width": 1 / 16, **fc, **more}
    return NetworkSpec(num_classes=num_classes, head=head, backbone=backbone, **fields)


def random_network(
    head: Head = "fcn8s", *, seed: int = 0, dtype: torch.dtype = torch.float32, **spec: Any
) -> FCN:
    """A narrow network in evaluation mode whose masks hold several classes."""
    network = build(narrow_spec(head, **spec), seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("score"):
                parameter.normal_(0, 1, generator=generator)
            elif name.endswith(".bias"):
                parameter.normal_(0, 0.1, generator=generator)
    return network.to(dtype).eval()
