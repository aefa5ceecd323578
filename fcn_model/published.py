"""Published weights by our names: torchvision's, Caffe's, and those of pytorch-fcn.

What the three call a layer, and how they store it, is known here and in each `Trunk`; whether the
tensors fit a network is for `surgery` to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fcn_model.backbones.trunk import Trunk
from fcn_model.errors import WeightsError
from fcn_model.spec import AT_ONCE_SCALES
from fcn_model.weights import WeightsFile

CLASSIFIERS = ("fc8", "loss3/classifier")
"""Caffe's names of the layer that scores the ImageNet classes."""

AUXILIARY = ("loss1/", "loss2/", "aux1.", "aux2.")
"""GoogLeNet's classifiers half way up, in Caffe and torchvision."""

BGRD = "_bgrd"
"""What nyud-fcn32s-color-d of the reference adds to the name of its first convolution."""

BATCH_NORM_EPSILON = 1e-3
"""torchvision's, in GoogLeNet (``BasicConv2d``)."""

NORM_PARTS = ("weight", "bias", "running_mean", "running_var")

AT_ONCE_NET = "FCN8sAtOnce"
"""The class whose name pytorch-fcn writes beside at-once weights, which look like FCN-8s's."""


def tensors_of(file: WeightsFile) -> dict[str, Tensor]:
    """The tensors of a file, and the factors before its skips' scores that its net's name says."""
    if file.net != AT_ONCE_NET:
        return file.tensors
    return with_scales(file.tensors, ("pool4", "pool3"), AT_ONCE_SCALES)


def with_scales(
    tensors: Mapping[str, Tensor], skips: Sequence[str], scales: Sequence[float]
) -> dict[str, Tensor]:
    """``tensors`` with the factors before the scores of ``skips`` as the reference stores them.

    A factor of 1 needs no tensor, and what ``tensors`` say themselves stays.
    """
    factors = {
        f"scale_{skip}.weight": torch.tensor([scale])
        for skip, scale in zip(skips, scales, strict=True)
        if scale != 1
    }
    return {**factors, **tensors}


def by_our_names(
    tensors: Mapping[str, Tensor], trunk: Trunk, *, classifier: str | None = None
) -> dict[str, Tensor]:
    """``tensors`` by our names of the layers, as far as they are known; the others keep theirs.

    Batch normalizations are folded into their convolutions. Auxiliary classifiers are dropped, as
    is the last one, unless ``classifier`` says what it is to be called. Raises WeightsError if two
    names are of one tensor of ours.
    """
    ours: dict[str, Tensor] = {}
    for name, value in tidy(tensors).items():
        layer, _, kind = name.rpartition(".")
        if layer.startswith(AUXILIARY):
            continue
        if layer in (*CLASSIFIERS, trunk.classifier):
            if classifier is None:
                continue
            renamed = classifier
        else:
            renamed = trunk.imagenet_names.get(layer, layer)
        known = f"{renamed}.{kind}"
        if known in ours:
            raise WeightsError(f"the file has {known} twice, once as {name}")
        ours[known] = value
    return ours


def tidy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same values without what differs only in form; safe to do twice.

    Batch normalizations are folded, the reference's ``conv1_1_bgrd`` is ``conv1_1``, and the axes
    that Caffe's older files put before a bias, and before a fully connected weight, are gone.
    """
    plain = {}
    for name, value in folded(tensors).items():
        alias = name.replace(f"{BGRD}.", ".")
        plain[name if alias in tensors else alias] = value
    for name in [name for name in plain if name.endswith(".bias")]:
        if set(plain[name].shape[:-1]) == {1}:
            plain[name] = plain[name].flatten()
        weight = f"{name.removesuffix('.bias')}.weight"
        shape = tuple(plain[weight].shape) if weight in plain else ()
        if shape[:2] == (1, 1) and shape[2:3] == (plain[name].numel(),) and shape[2] > 1:
            plain[weight] = plain[weight].flatten(0, 2)
    return plain


def folded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``PLACE.conv`` and the ``PLACE.bn`` after it as one convolution with bias, called ``PLACE``.

    With w, b, mean and var of the normalization, ``w (conv(x) - mean) / sqrt(var + eps) + b`` is a
    convolution with weights ``conv w / sqrt(var + eps)``. Incomplete pairs are left as they are.
    """
    folded = dict(tensors)
    for last in [name for name in tensors if name.endswith(".bn.running_var")]:
        place = last.removesuffix(".bn.running_var")
        names = [f"{place}.conv.weight", *(f"{place}.bn.{part}" for part in NORM_PARTS)]
        parts = [folded[name].double() for name in names if name in folded]
        shapes = [tuple(part.shape) for part in parts]
        if len(parts) != len(names) or {len(shapes[0]), *shapes[1:]} != {4, shapes[0][:1]}:
            continue
        kernel, weight, bias, mean, variance = parts
        scale = weight / torch.sqrt(variance + BATCH_NORM_EPSILON)
        folded[f"{place}.weight"] = (kernel * scale.view(-1, 1, 1, 1)).float()
        folded[f"{place}.bias"] = (bias - mean * scale).float()
        for name in (*names, f"{place}.bn.num_batches_tracked"):
            folded.pop(name, None)
    return folded
