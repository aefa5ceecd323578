"""One file format for a trained network: ``model.safetensors`` and ``config.json``.

The config says what the network is, what its classes mean and how its input is normalized, and
carries two sums: one of the weights file as it lies there, and the *digest* of everything that
determines a mask. Two checkpoints with one digest give the same masks. No pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcn_model import model_config
from fcn_model.errors import CheckpointError, SpecError
from fcn_model.model_config import CONFIG_FILE, FORMAT, VERSION, WEIGHTS_FILE, ModelConfig
from fcn_model.network import FCN
from fcn_model.spec import NetworkSpec


def save(directory: Path, network: FCN, config: ModelConfig) -> ModelConfig:
    """Write a checkpoint directory, weights first; returns the config with its digest."""
    directory.mkdir(parents=True, exist_ok=True)
    files = to_files(network, config)
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        part = directory / f".{name}.part"
        part.write_bytes(files[name])
        part.replace(directory / name)
    return replace(config, digest=json.loads(files[CONFIG_FILE])["digest"])


def load(directory: Path) -> tuple[FCN, ModelConfig]:
    """Read and verify a checkpoint directory; the network is on the CPU, in fp32, evaluating.

    Raises CheckpointError, one line naming the directory and what is wrong with it.
    """
    files = {}
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        path = directory / name
        if path.is_file():
            files[name] = path.read_bytes()
    try:
        return from_files(files)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {directory}: {error}") from error


def to_files(network: FCN, config: ModelConfig) -> dict[str, bytes]:
    """The checkpoint as file contents by name. Raises SpecError if ``config`` is of another net."""
    if network.spec != config.spec:
        raise SpecError(f"the network is {network.spec}, but the config says {config.spec}")
    tensors = {
        name: value.detach().to("cpu", torch.float32).contiguous()
        for name, value in network.state_dict().items()
    }
    weights = safetensors.torch.save(tensors)
    described = model_config.describe(config)
    document = {
        "format": FORMAT,
        "format_version": VERSION,
        "name": config.spec.name,
        **described,
        "stride": network.stride,
        "files": {WEIGHTS_FILE: {"sha256": model_config.sha256(weights), "bytes": len(weights)}},
        "digest": model_config.digest(config, _arrays(tensors)),
    }
    return {WEIGHTS_FILE: weights, CONFIG_FILE: (json.dumps(document, indent=2) + "\n").encode()}


def from_files(files: Mapping[str, bytes]) -> tuple[FCN, ModelConfig]:
    """Verify what `to_files` made and build the network from it.

    Raises CheckpointError, one line: a file is missing, the format is unknown, the weights are not
    those the config speaks of, or they do not fit the network.
    """
    config = model_config.read(files)
    network = _network(config.spec, files[WEIGHTS_FILE])
    model_config.check_digest(config, _arrays(network.state_dict()))
    return network, config


def _network(spec: NetworkSpec, weights: bytes) -> FCN:
    """The network that holds the tensors of a weights file, without drawing any first."""
    try:
        tensors = safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{WEIGHTS_FILE} is not a safetensors file ({error})") from error
    with torch.device("meta"):
        network = FCN(spec)
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    faults = [f"{name} is missing" for name in sorted(set(wanted) - set(found))]
    faults += [f"{name} is unexpected" for name in sorted(set(found) - set(wanted))]
    faults += [
        f"{name} is {found[name]} instead of {shape}"
        for name, shape in wanted.items()
        if found.get(name, shape) != shape
    ]
    faults += [
        f"{name} is {value.dtype} instead of torch.float32"
        for name, value in tensors.items()
        if value.dtype != torch.float32
    ]
    if faults:
        raise CheckpointError(
            f"{WEIGHTS_FILE} does not fit {spec.name}: {'; '.join(faults[:4])}"
            + (f"; and {len(faults) - 4} more" if len(faults) > 4 else "")
        )
    network.load_state_dict(tensors, assign=True)
    return network.requires_grad_(True).eval()


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, NDArray[Any]]:
    return {name: value.detach().numpy() for name, value in tensors.items()}
