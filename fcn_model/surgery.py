"""Giving a network parameters trained elsewhere: all that fit, or a list of what does not.

Source: ``surgery.py`` of the reference (transplant): fully connected weights become convolutions by
a flat reshape, because both number their inputs channel, row, column.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fcn_model.errors import WeightsError
from fcn_model.network import FCN

DROPPED = ("classifier.6.weight", "classifier.6.bias")
"""The ImageNet classes, which a segmentation network has no use for."""

FULLY_CONNECTED = ("fc6", "fc7")


def vgg16_weights(tensors: Mapping[str, Tensor], network: FCN) -> list[str]:
    """Fill the trunk, and fc6 and fc7 where given, from a torchvision VGG16 state dict.

    ``classifier.0`` and ``classifier.3`` become fc6 and fc7 by reshaping O x (C H W) to
    O x C x H x W. They are left out, and fc6 and fc7 stay fresh, if the network was asked for
    another ``fc_width``. Tensors named as in the paper (``conv1_1.weight``) go by `copy_by_name`.
    Returns the names of the parameters that were filled. Raises WeightsError, and changes nothing,
    if trunk tensors are missing, of another shape, or unknown.
    """
    if "conv1_1.weight" in tensors:
        return copy_by_name(tensors, network)
    ours = {
        f"{theirs}.{kind}": f"{layer}.{kind}"
        for theirs, layer in network.backbone.imagenet_names.items()
        for kind in ("weight", "bias")
    }
    unexpected = sorted(set(tensors) - set(ours) - set(DROPPED))
    given = {ours[name]: value for name, value in tensors.items() if name in ours}
    wanted = dict(network.named_parameters())
    for layer in FULLY_CONNECTED:
        weight, bias = given.get(f"{layer}.weight"), given.get(f"{layer}.bias")
        if bias is not None and len(bias) != network.spec.fc_width:
            given.pop(f"{layer}.weight", None)
            del given[f"{layer}.bias"]
        elif weight is not None:
            given[f"{layer}.weight"] = _as_convolution(weight, wanted[f"{layer}.weight"])
    needed = {name for name in ours.values() if name.split(".")[0] not in FULLY_CONNECTED}
    return _fill(network, given, missing=sorted(needed - set(given)), unexpected=unexpected)


def copy_by_name(tensors: Mapping[str, Tensor], network: FCN) -> list[str]:
    """Fill the network from another one's state dict, as a finer head starts from a coarser one.

    Scores that only ``network`` has stay zero, so it starts from what the coarser net says. If the
    two differ in the number of classes, every score layer is left as it is. Returns the names of
    the parameters that were filled. Raises WeightsError, and changes nothing, if tensors other than
    scores are missing, or any is of another shape or unknown.
    """
    wanted = dict(network.named_parameters())
    given = dict(tensors)
    bias = given.get("score_fr.bias")
    if bias is not None and len(bias) != network.spec.num_classes:
        given = {name: value for name, value in given.items() if not _is_score(name)}
    missing = sorted(name for name in set(wanted) - set(given) if not _is_score(name))
    return _fill(network, given, missing=missing, unexpected=sorted(set(given) - set(wanted)))


def _is_score(name: str) -> bool:
    return name.startswith("score_")


def _as_convolution(weight: Tensor, like: Tensor) -> Tensor:
    """A fully connected (O, C H W) weight in the shape of a convolution's, if the counts agree."""
    if weight.ndim == 2 and weight.numel() == like.numel() and len(weight) == len(like):
        return weight.reshape(like.shape)
    return weight


def _fill(
    network: FCN, given: Mapping[str, Tensor], *, missing: list[str], unexpected: list[str]
) -> list[str]:
    """Copy the tensors if, and only if, there is nothing to complain about."""
    wanted = dict(network.named_parameters())
    misshapen = [
        f"{name} {tuple(value.shape)} given, {tuple(wanted[name].shape)} wanted"
        for name, value in given.items()
        if name in wanted and value.shape != wanted[name].shape
    ]
    faults = [
        f"{what}: {_some(names)}"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", misshapen),
        )
        if names
    ]
    if faults:
        raise WeightsError(
            f"the weights do not fit {network.spec.name}, which was left as it is; "
            + "; ".join(faults)
        )
    with torch.no_grad():
        for name, value in given.items():
            wanted[name].copy_(value)
    return [name for name in wanted if name in given]


def _some(names: list[str], limit: int = 8) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
