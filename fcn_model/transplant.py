"""Copying tensors into parameters of the same names: all of them, or none and a list of both sides.

Source: ``transplant`` in ``surgery.py`` of the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from fcn_model.errors import WeightsError

Tensors = Mapping[str, Tensor]

SHOWN = 8
"""How many names of one kind an error lists."""


def transplant(
    given: Tensors, network: nn.Module, title: str, *, needed: Callable[[str], bool]
) -> list[str]:
    """Copy ``given`` into the parameters of ``network`` and return the names that were filled.

    ``needed`` says of a parameter whether it must be given. Raises WeightsError, and changes
    nothing, if any is missing, unknown, of another shape, no float or not finite: it lists what was
    given and not wanted, and what was wanted and not given.
    """
    wanted = dict(network.named_parameters())
    both = [name for name in wanted if name in given]
    fitting = [name for name in both if given[name].shape == wanted[name].shape]
    faults = {
        "wanted and missing": _shown((name for name in wanted if needed(name)), wanted, given),
        "given and unexpected": _shown(given, given, wanted),
        "of another shape": [
            f"{name} {tuple(given[name].shape)} given, {tuple(wanted[name].shape)} wanted"
            for name in both
            if name not in fitting
        ],
        "not floating point": [
            f"{name} {given[name].dtype}" for name in fitting if not given[name].is_floating_point()
        ],
        "not finite numbers": [
            name
            for name in fitting
            if given[name].is_floating_point() and not given[name].isfinite().all()
        ],
    }
    if any(faults.values()):
        raise WeightsError(
            f"the weights do not fit {title}, which was left as it is; "
            + "; ".join(f"{what}: {_some(names)}" for what, names in faults.items() if names)
        )
    with torch.no_grad():
        for name in both:
            wanted[name].copy_(given[name])
    return both


def as_convolutions(
    tensors: Tensors, network: nn.Module, layers: tuple[str, ...]
) -> dict[str, Tensor]:
    """``tensors`` with the weights of fully connected ``layers`` in the shape of ``network``'s.

    O x (C H W) becomes O x C x H x W by a flat reshape, because both number the inputs channel,
    row, column. A weight of other counts stays as it is. A stream's name may follow a layer's.
    """
    wanted = dict(network.named_parameters())
    shaped = dict(tensors)
    for name, value in tensors.items():
        dense = name.startswith(layers) and name.endswith(".weight") and value.ndim == 2
        like = wanted.get(name)
        if dense and like is not None and value.numel() == like.numel():
            shaped[name] = value.reshape(like.shape) if len(value) == len(like) else value
    return shaped


def _shown(names: Iterable[str], tensors: Tensors, other_side: Tensors) -> list[str]:
    """The names that the other side lacks, with their shapes."""
    return [f"{name} {tuple(tensors[name].shape)}" for name in names if name not in other_side]


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest
