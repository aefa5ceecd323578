"""Checkpoint directories and weights files at any URI."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from torch import Tensor

from fcn_model import FCN, ModelConfig, checkpoint, published, surgery, weights
from fcn_model.errors import WeightsError
from fcn_model.weights import WeightsFile
from pipelines import checkpoint_files, storage

WEIGHTS_SUFFIXES = weights.SUFFIXES

_ENUM = re.compile(r"\w+_Weights\.\w+")


def load(uri: str) -> tuple[FCN, ModelConfig]:
    """Load the checkpoint directory at ``uri``, verified. The network is on the CPU, in fp32.

    Raises NotFoundError or CheckpointError, each naming the directory and what is wrong with it.
    """
    return checkpoint_files.read(uri, checkpoint.from_files)


def save(uri: str, network: FCN, config: ModelConfig) -> ModelConfig:
    """Write a checkpoint directory, weights first, and return its config with the digest."""
    uri = storage.parse_uri(uri)
    files = checkpoint.to_files(network, config)
    for name in sorted(files, key=checkpoint_files.FILES.index, reverse=True):
        storage.replace(storage.join(uri, name), files[name])
    return checkpoint.from_files(files)[1]


def start_from(network: FCN, init: str | Mapping[str, str]) -> list[str]:
    """Fill ``network`` from ``init`` and return the names of the parameters that it gave.

    ``init`` is a weights file that `read_weights` knows, by path or URI; the name of a torchvision
    weights enum such as ``VGG16_Weights.IMAGENET1K_V1`` (needs internet); or a checkpoint directory
    of ours. For a network of several streams it may have one of these for each, by the stream's
    name: a color net and an HHA net joined. What is taken over, `surgery.fill` says.
    Raises InputError, NotFoundError, CheckpointError or WeightsError.
    """
    try:
        if isinstance(init, str):
            return surgery.fill(_tensors(init), network)
        return surgery.join({stream: _tensors(each) for stream, each in init.items()}, network)
    except WeightsError as error:
        names = init if isinstance(init, str) else ", ".join(init.values())
        raise WeightsError(f"{names}: {error}") from error


def is_weights(init: str) -> bool:
    """Whether ``init`` names a weights file or a torchvision enum, not a checkpoint directory."""
    return _is_file(init) or _ENUM.fullmatch(init) is not None


def read_weights(init: str) -> WeightsFile:
    """The weights that `is_weights` recognizes. Raises as `start_from`."""
    if not _is_file(init) and _ENUM.fullmatch(init):
        return WeightsFile(weights.torchvision_weights(init))
    uri = storage.parse_uri(init)
    return weights.read_file(storage.read_bytes(uri), PurePosixPath(uri).name)


def _is_file(init: str) -> bool:
    return init.lower().endswith(WEIGHTS_SUFFIXES)


def _tensors(init: str) -> Mapping[str, Tensor]:
    """What ``init`` holds, with the factors before its skips' scores."""
    if is_weights(init):
        return published.tensors_of(read_weights(init))
    network, config = load(init)
    skips = network.backbone.skips
    return published.with_scales(network.state_dict(), skips, config.spec.skip_scales)
