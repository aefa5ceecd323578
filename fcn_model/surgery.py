"""Start weights: what a network takes over from a classifier or from another network of ours.

Source: ``surgery.py`` of the reference and the ``solve.py`` of its nets. Every function raises
WeightsError, and leaves the network as it is, for tensors that do not fit (see `transplant`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fcn_model.errors import WeightsError
from fcn_model.layers import BilinearUpsample, bilinear_kernel, dense_bilinear
from fcn_model.network import FCN
from fcn_model.published import by_our_names
from fcn_model.transplant import Tensors, as_convolutions, transplant

COLORS = 3
"""Input channels of every published classifier."""

SCORE = re.compile(r"score_(fr|pool\d)(?:_([a-z]+))?")
UPSAMPLER = re.compile(r"upscore(?:\d+|_pool\d)?(?:_([a-z]+))?")
SCALE = re.compile(r"scale_(pool\d)\.weight")
"""The reference's constant factor before a skip's scores, one number for each channel."""


def fill(tensors: Tensors, network: FCN) -> list[str]:
    """Fill the network from one file of start weights; returns the names of what was filled.

    ``tensors`` are a classifier's under any name that `published` knows, or of a network like ours:

    - Of a classifier all is needed but fc6 and fc7, which stay fresh if the file has neither or the
      network was asked for another ``fc_width``.
    - Of a network, which scores give away, all is needed but the scores that only ours has: so a
      finer head starts from a coarser one. A task that the other net has not, or of which it knows
      other classes, starts fresh.
    - If its factors before the skips' scores (`with_scales`) are others than ours, the weights of
      those scores make up for it.
    - Its upsampling kernels are taken where ours learns one of the same name; otherwise they are
      dropped if they are bilinear or of another stage.
    - Input channels beyond three start from the mean of the three (nyud-fcn32s-color-d).
    - A file of one stream fills every stream.
    """
    given = by_our_names(tensors, network.backbone)
    streams = _stream_names(network)
    if streams != [""] and f"{network.backbone.steps[0].name}.weight" in given:
        return join(dict.fromkeys(streams, tensors), network)
    return _fill(_rescaled(given, network), network)


def join(by_stream: Mapping[str, Tensors], network: FCN) -> list[str]:
    """Fill every stream of the network from a file of its own (nyud-fcn32s-color-hha).

    Upsampling kernels, which the streams share, stay as they are; otherwise as `fill`.
    """
    streams = _stream_names(network)
    if set(by_stream) != set(streams):
        raise WeightsError(
            f"{network.spec.name} needs weights for each of its streams {sorted(streams)}, "
            f"got some for {sorted(by_stream)}"
        )
    given = {}
    for stream, tensors in by_stream.items():
        ours = _rescaled(by_our_names(tensors, network.backbone), network)
        for name, value in ours.items():
            layer, _, kind = name.rpartition(".")
            if not UPSAMPLER.fullmatch(layer):
                given[f"{layer}{stream}.{kind}"] = value
    return _fill(given, network)


def fill_wholly(tensors: Tensors, network: FCN) -> list[str]:
    """Fill every parameter of the network from one of the same kind, by our names.

    Constants of the file that the network has too (bilinear kernels, factors before skips) are
    accepted; returns the names of what was filled.
    """
    given = _without_constants(tensors, network)
    given = as_convolutions(given, network, network.backbone.fully_connected)
    return transplant(given, network, network.spec.name, needed=lambda _: True)


def is_bilinear(weight: Tensor) -> bool:
    """Whether a kernel is one of the reference's fixed ones: (K, K, s, s), or (K, 1, s, s)."""
    if weight.ndim != 4 or weight.shape[2] != weight.shape[3] or not weight.is_floating_point():
        return False
    outputs, inputs, size, _ = weight.shape
    if inputs not in (1, outputs):
        return False
    one = bilinear_kernel(size)
    kernel = dense_bilinear(outputs, size) if inputs > 1 else one.expand(outputs, 1, -1, -1)
    return torch.allclose(weight, kernel, rtol=0, atol=1e-6)


def task_of(layer: str, streams: Sequence[str] = ()) -> str | None:
    """The task, "" if it has no name, of a score or upsampling layer; None for any other."""
    stream = next((name for name in streams if name and layer.endswith(name)), "")
    score, upsampler = SCORE.fullmatch(layer.removesuffix(stream)), UPSAMPLER.fullmatch(layer)
    if score:
        return score[2] or ""
    return upsampler[1] or "" if upsampler else None


def _fill(given: dict[str, Tensor], network: FCN) -> list[str]:
    """Fill as `fill` says, from tensors by our names with those of the streams."""
    dense = network.backbone.fully_connected
    optional: tuple[str, ...] = ("score_", "upscore")
    if not any(name.startswith("score_") for name in given):
        given = _without_other_width(given, network)
        if not any(name.startswith(dense) for name in given):
            optional += dense
    given = _without_other_tasks(given, network)
    given = _without_constants(_without_other_stages(given, network), network)
    given = _with_all_channels(as_convolutions(given, network, dense), network)
    begun = {name.rpartition(".")[0] for name in given}
    return transplant(
        given,
        network,
        network.spec.name,
        needed=lambda name: not name.startswith(optional) or name.rpartition(".")[0] in begun,
    )


def _rescaled(given: Tensors, network: FCN) -> dict[str, Tensor]:
    """``given`` with our factors before the skips' scores instead of its own.

    A factor s before a layer W, b gives ``W s x + b``: the same as W s / s' after our factor s'.
    """
    rescaled = dict(given)
    for skip, ours in _scales(network).items():
        theirs = given.get(f"scale_{skip}.weight", torch.ones(1))
        weights = {
            name: value
            for name, value in given.items()
            if name.startswith(f"score_{skip}") and value.ndim == 4 and value.is_floating_point()
        }
        if all(theirs.numel() in (1, value.shape[1]) for value in weights.values()):
            factor = theirs.reshape(1, theirs.numel(), 1, 1) / torch.tensor(ours)
            rescaled |= {name: value * factor for name, value in weights.items()}
            rescaled.pop(f"scale_{skip}.weight", None)
    return rescaled


def _scales(network: FCN) -> dict[str, float]:
    return {fusion.feature: fusion.scale for head in network.heads for fusion in head.fusions}


def _stream_names(network: FCN) -> list[str]:
    return [stream.name for stream in network.spec.streams]


def _without_other_width(given: dict[str, Tensor], network: FCN) -> dict[str, Tensor]:
    """``given`` without the fully connected layers if they are of another width."""
    dense = network.backbone.fully_connected
    of_dense = {name: value for name, value in given.items() if name.startswith(dense)}
    wanted = (network.spec.fc_width,)
    if all(value.shape == wanted for name, value in of_dense.items() if name.endswith(".bias")):
        return given
    return {name: value for name, value in given.items() if name not in of_dense}


def _without_other_tasks(given: dict[str, Tensor], network: FCN) -> dict[str, Tensor]:
    """``given`` without what scores a task that the network has not, or with other classes."""
    counts = {task.name: (task.num_classes,) for task in network.spec.tasks}
    tasks = {name: task_of(name.rpartition(".")[0], _stream_names(network)) for name in given}
    other = {
        tasks[name]
        for name, value in given.items()
        if name.startswith("score_fr")
        and name.endswith(".bias")
        and counts.get(tasks[name] or "") != value.shape
    }
    return {name: value for name, value in given.items() if tasks[name] not in other}


def _without_other_stages(given: dict[str, Tensor], network: FCN) -> dict[str, Tensor]:
    """``given`` without the upsampling kernels of steps that the network has not."""
    ours = {name for name, _ in network.named_children()}
    layers = {name: name.rpartition(".")[0] for name in given}
    return {
        name: value
        for name, value in given.items()
        if layers[name] in ours or not UPSAMPLER.fullmatch(layers[name])
    }


def _without_constants(given: Tensors, network: FCN) -> dict[str, Tensor]:
    """``given`` without the constants of the reference's nets that the network has as well."""
    layers = dict(network.named_children())
    scales = _scales(network)
    kept = {}
    for name, value in given.items():
        scale = SCALE.fullmatch(name)
        if scale and scale[1] in scales:
            constant = torch.allclose(value, torch.full_like(value, scales[scale[1]]), atol=0)
        else:
            layer = layers.get(name.removesuffix(".weight"))
            constant = isinstance(layer, BilinearUpsample) and _is_kernel_of(value, layer)
        if not constant:
            kept[name] = value
    return kept


def _is_kernel_of(weight: Tensor, layer: BilinearUpsample) -> bool:
    channels, _, size, _ = layer.kernel.shape
    return is_bilinear(weight) and (weight.shape[0], weight.shape[-1]) == (channels, size)


def _with_all_channels(given: dict[str, Tensor], network: FCN) -> dict[str, Tensor]:
    """``given`` with first convolutions for every channel that the network takes."""
    for stream in network.spec.streams:
        name = f"{network.backbone.steps[0].name}{stream.name}.weight"
        weight = given.get(name)
        if weight is not None and weight.ndim == 4 and weight.shape[1] == COLORS < stream.channels:
            more = weight.mean(1, keepdim=True).expand(-1, stream.channels - COLORS, -1, -1)
            given = {**given, name: torch.cat([weight, more], 1)}
    return given
