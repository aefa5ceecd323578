"""Checkpoint directories and weights files at any URI."""

from __future__ import annotations

from pathlib import PurePosixPath

from fcn_model import FCN, ModelConfig, checkpoint, surgery, weights
from fcn_model.errors import CheckpointError
from pipelines import storage
from pipelines.errors import NotFoundError

WEIGHTS_SUFFIXES = (".pth", ".pt", ".safetensors", ".npz")
FILES = ("config.json", "model.safetensors")


def load(uri: str) -> tuple[FCN, ModelConfig]:
    """Load the checkpoint directory at ``uri``, verified. The network is on the CPU, in fp32.

    Raises NotFoundError or CheckpointError, each naming the directory and what is wrong with it.
    """
    uri = storage.parse_uri(uri)
    files = {}
    for name in FILES:
        try:
            files[name] = storage.read_bytes(storage.join(uri, name))
        except NotFoundError as error:
            raise NotFoundError(
                f"{uri} is no checkpoint directory: it has no {name} "
                f"(a checkpoint holds {' and '.join(FILES)})"
            ) from error
    try:
        return checkpoint.from_files(files)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {uri}: {error}") from error


def save(uri: str, network: FCN, config: ModelConfig) -> ModelConfig:
    """Write a checkpoint directory, weights first, and return its config with the digest."""
    files = checkpoint.to_files(network, config)
    for name in sorted(files, key=FILES.index, reverse=True):
        storage.replace(storage.join(uri, name), files[name])
    return checkpoint.from_files(files)[1]


def start_from(network: FCN, init: str) -> list[str]:
    """Fill ``network`` from ``init`` and return the names of the parameters that it gave.

    ``init`` is a torchvision VGG16 state dict (``.pth``, ``.safetensors`` or ``.npz``) by path or
    URI, the name of a torchvision weights enum such as ``VGG16_Weights.IMAGENET1K_V1`` (needs
    internet), or a checkpoint directory of ours, whose parameters are copied by name.
    Raises InputError, NotFoundError or WeightsError.
    """
    if init.startswith("VGG16_Weights."):
        return surgery.vgg16_weights(weights.torchvision_weights(init), network)
    uri = storage.parse_uri(init)
    name = PurePosixPath(uri).name
    if name.endswith(WEIGHTS_SUFFIXES):
        tensors = weights.read_weights(storage.read_bytes(uri), name)
        return surgery.vgg16_weights(tensors, network)
    coarser, _ = load(uri)
    return surgery.copy_by_name(coarser.state_dict(), network)
