"""The files of a checkpoint directory at any URI, and what they say; without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from fcn_model import ModelConfig, model_config
from fcn_model.errors import CheckpointError
from pipelines import storage
from pipelines.errors import NotFoundError

Read = TypeVar("Read")

FILES = (model_config.CONFIG_FILE, model_config.WEIGHTS_FILE)


def config_of(uri: str) -> ModelConfig:
    """What the checkpoint says of its network, if its files are as they were written.

    Raises as `read`. Whether the tensors fit the network is not looked at.
    """
    return read(uri, model_config.verified)


def read(uri: str, verify: Callable[[Mapping[str, bytes]], Read]) -> Read:
    """What ``verify`` makes of the files by name.

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
        return verify(files)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {uri}: {error}") from error
