"""The files of a checkpoint directory at any URI, and what they say; without torch."""

from __future__ import annotations

from fcn_model import ModelConfig, model_config
from fcn_model.errors import CheckpointError
from pipelines import storage
from pipelines.errors import NotFoundError

FILES = (model_config.CONFIG_FILE, model_config.WEIGHTS_FILE)


def read(uri: str) -> dict[str, bytes]:
    """Its files by name. Raises NotFoundError, which names the one that is not there."""
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
    return files


def config_of(uri: str) -> ModelConfig:
    """What the checkpoint says of its network, if its files are as they were written.

    Raises NotFoundError or CheckpointError, each naming the directory and what is wrong with it.
    """
    try:
        return model_config.verified(read(uri))
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {storage.parse_uri(uri)}: {error}") from error
