"""What a checkpoint says of its network, and whether its files are those that were written.

Nothing here needs torch, so that a job can look at a checkpoint before it starts anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from fcn_model.classes import ClassList
from fcn_model.errors import CheckpointError, SpecError
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


def verified(files: Mapping[str, bytes]) -> ModelConfig:
    """The config of a checkpoint's files by name, if they are as they were written.

    Whether the tensors fit the network is not looked at. Raises CheckpointError, one line.
    """
    config = read(files)
    try:
        tensors = safetensors.numpy.load(files[WEIGHTS_FILE])
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{WEIGHTS_FILE} is not a safetensors file ({error})") from error
    check_digest(config, tensors)
    return config


def read(files: Mapping[str, bytes]) -> ModelConfig:
    """The config, if the weights file is the one that it speaks of.

    Raises CheckpointError, one line: a file is missing, the format is unknown, a field is wrong, or
    the weights are others.
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
    found = sha256(files[WEIGHTS_FILE])
    if found != expected:
        raise CheckpointError(
            f"{WEIGHTS_FILE} is damaged or of another checkpoint: its sha256 is {found}, "
            f"{CONFIG_FILE} says {expected}"
        )
    return config


def check_digest(config: ModelConfig, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Raise CheckpointError if the config's digest is not that of its contents and ``tensors``."""
    found = digest(config, tensors)
    if found != config.digest:
        raise CheckpointError(
            f"{CONFIG_FILE} was changed after it was written: its digest is {config.digest}, "
            f"its contents give {found}"
        )


def digest(config: ModelConfig, tensors: Mapping[str, NDArray[Any]]) -> str:
    """sha256 over the config and each tensor's name, dtype (as torch calls it), shape and bytes."""
    sum_ = hashlib.sha256(json.dumps(describe(config), sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        sum_.update(f"\n{name} torch.{value.dtype} {tuple(value.shape)}\n".encode())
        sum_.update(value.data)
    return sum_.hexdigest()


def describe(config: ModelConfig) -> dict[str, Any]:
    """The config as JSON values, without the digest."""
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


def sha256(data: bytes) -> str:
    """In hexadecimal."""
    return hashlib.sha256(data).hexdigest()
