"""One file format for a trained network: ``model.safetensors`` and ``config.json``.

The config says what the network is, what its classes mean and how its input is normalized, and
carries two sums: one of the weights file as it lies there, and the *digest* of everything that
determines a mask. Two checkpoints with one digest give the same masks. No pickle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fcn_model.classes import ClassList
from fcn_model.errors import CheckpointError, SpecError
from fcn_model.network import FCN
from fcn_model.normalize import Normalization
from fcn_model.spec import NetworkSpec

FORMAT = "fcn-checkpoint"
VERSION = 1
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything about a network but its tensors. ``digest`` is empty until it is saved.

    ``more_classes`` has a list for each of the spec's ``more_tasks``. The network's input is the
    image under ``normalization`` and then every further plane (``depth``, ``hha``) by name, under
    its own; ``image_plane`` names the plane that is seen in the image's place, if there is one
    (nyud-fcn32s-hha). Raises SpecError if the classes are not as many as the network's scores, or
    the normalizations do not make the channels that it takes.
    """

    spec: NetworkSpec
    classes: ClassList
    normalization: Normalization
    more_classes: tuple[ClassList, ...] = ()
    planes: tuple[tuple[str, Normalization], ...] = ()
    image_plane: str = ""
    digest: str = ""

    def __post_init__(self) -> None:
        found = " + ".join(str(len(classes)) for classes in self.class_lists)
        wanted = " + ".join(str(task.num_classes) for task in self.spec.tasks)
        if found != wanted:
            raise SpecError(f"the network scores {wanted} classes, but the class list has {found}")
        inputs = (self.normalization, *(normalization for _, normalization in self.planes))
        channels = sum(normalization.channels for normalization in inputs)
        if channels != self.spec.in_channels:
            raise SpecError(
                f"the network takes {self.spec.in_channels} channels, but the normalizations of "
                f"{['image', *(name for name, _ in self.planes)]} make {channels}"
            )
        if len(set(self.needs)) < len(self.needs):
            raise SpecError(f"every plane is an input once, got {list(self.needs)}")

    @property
    def class_lists(self) -> tuple[ClassList, ...]:
        """The class list of every task, the first one first."""
        return (self.classes, *self.more_classes)

    @property
    def needs(self) -> tuple[str, ...]:
        """The planes that the network needs beside each image."""
        first = (self.image_plane,) if self.image_plane else ()
        return (*first, *(name for name, _ in self.planes))


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
    described = _describe(config)
    document = {
        "format": FORMAT,
        "format_version": VERSION,
        "name": config.spec.name,
        **described,
        "stride": network.stride,
        "files": {WEIGHTS_FILE: {"sha256": _sha256(weights), "bytes": len(weights)}},
        "digest": _digest(described, tensors),
    }
    return {WEIGHTS_FILE: weights, CONFIG_FILE: (json.dumps(document, indent=2) + "\n").encode()}


def from_files(files: Mapping[str, bytes]) -> tuple[FCN, ModelConfig]:
    """Verify what `to_files` made and build the network from it.

    Raises CheckpointError, one line: a file is missing, the format is unknown, the weights are not
    those the config speaks of, or they do not fit the network.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if name not in files:
            raise CheckpointError(
                f"{name} is missing (a checkpoint holds {CONFIG_FILE} and {WEIGHTS_FILE})"
            )
    document = _parse(files[CONFIG_FILE])
    try:
        config = ModelConfig(
            spec=NetworkSpec.from_dict(document["architecture"]),
            classes=ClassList.from_dict(document["classes"]),
            normalization=Normalization.from_dict(document["normalization"]),
            more_classes=tuple(
                ClassList.from_dict(value) for value in document.get("more_classes", ())
            ),
            planes=tuple(
                (str(name), Normalization.from_dict(value))
                for name, value in document.get("planes", ())
            ),
            image_plane=str(document.get("image_plane", "")),
            digest=str(document["digest"]),
        )
        expected = document["files"][WEIGHTS_FILE]["sha256"]
    except SpecError as error:
        raise CheckpointError(f"{CONFIG_FILE}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{CONFIG_FILE} lacks a field or has it mistyped: {error}") from error
    found = _sha256(files[WEIGHTS_FILE])
    if found != expected:
        raise CheckpointError(
            f"{WEIGHTS_FILE} is damaged or of another checkpoint: its sha256 is {found}, "
            f"{CONFIG_FILE} says {expected}"
        )
    network = _network(config.spec, files[WEIGHTS_FILE])
    digest = _digest(_describe(config), network.state_dict())
    if digest != config.digest:
        raise CheckpointError(
            f"{CONFIG_FILE} was changed after it was written: its digest is {config.digest}, "
            f"its contents give {digest}"
        )
    return network, config


def _parse(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError as error:  # also UnicodeDecodeError
        raise CheckpointError(f"{CONFIG_FILE} is not JSON ({error})") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CheckpointError(f'{CONFIG_FILE} does not say "format": "{FORMAT}"')
    if document.get("format_version") != VERSION:
        raise CheckpointError(
            f"{CONFIG_FILE} is of format version {document.get('format_version')!r}, "
            f"this program reads version {VERSION}"
        )
    return document


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


def _describe(config: ModelConfig) -> dict[str, Any]:
    described: dict[str, Any] = {
        "architecture": config.spec.to_dict(),
        "classes": config.classes.to_dict(),
        "normalization": config.normalization.to_dict(),
    }
    if config.more_classes:
        described["more_classes"] = [classes.to_dict() for classes in config.more_classes]
    if config.planes:
        described["planes"] = [[name, value.to_dict()] for name, value in config.planes]
    if config.image_plane:
        described["image_plane"] = config.image_plane
    return described


def _digest(described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the config and each tensor's name, dtype, shape and bytes."""
    sum_ = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name].detach()
        sum_.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        sum_.update(value.numpy().data)
    return sum_.hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
