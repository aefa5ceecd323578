"""Weights files as tensors by name. Nothing in a file is ever run."""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fcn_model.errors import WeightsError

SUFFIXES = (".pth", ".pt", ".safetensors", ".npz")


def read_weights(data: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a weights file, floating ones as float32, on the CPU.

    ``name`` (a file name, path or URI) says by its suffix what ``data`` is: ``.pth`` or ``.pt``
    (torch.save of a state dict, read with ``weights_only=True``), ``.safetensors``, or ``.npz``
    (read with ``allow_pickle=False``). Raises WeightsError naming the file and what is wrong.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise WeightsError(f"{name}: a weights file ends in {', '.join(SUFFIXES)}")
    reader = {".safetensors": safetensors.torch.load, ".npz": _read_npz}.get(suffix, _read_torch)
    try:
        found = reader(data)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{name} holds more than tensors, which is never run here; save a plain state dict "
            f"or convert it to .safetensors ({_first_line(error)})"
        ) from error
    except (
        safetensors.SafetensorError,
        zipfile.BadZipFile,
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        EOFError,
        OSError,
    ) as error:
        raise WeightsError(
            f"{name} cannot be read as a {suffix} file of {len(data)} bytes ({_first_line(error)})"
        ) from error
    return _tensors(found, name)


def torchvision_weights(enum_name: str) -> dict[str, Tensor]:
    """The state dict of a torchvision weights enum such as ``VGG16_Weights.IMAGENET1K_V1``.

    torchvision fetches it from the internet, or takes it from its cache, and checks its hash.
    Raises WeightsError for a name that torchvision does not know, or if it cannot be had.
    """
    # torchvision takes seconds to import, and only this needs it.
    from torchvision.models import get_weight  # noqa: PLC0415

    try:
        weights = get_weight(enum_name)
    except (AttributeError, ValueError, KeyError) as error:
        raise WeightsError(
            f"torchvision has no weights named {enum_name!r}; "
            "VGG16_Weights.IMAGENET1K_V1 is one that fits"
        ) from error
    try:
        found = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"{enum_name} could not be fetched from {weights.url} ({_first_line(error)}); "
            "fetch the file elsewhere and name it by path or URI"
        ) from error
    return _tensors(found, enum_name)


def _read_torch(data: bytes) -> Any:
    with warnings.catch_warnings():
        # torch warns of a pickle that it is about to refuse; the refusal says enough.
        warnings.simplefilter("ignore")
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _read_npz(data: bytes) -> dict[str, Tensor]:
    archive = np.load(io.BytesIO(data), allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise TypeError("it is a single array, not an archive of named ones")
    with archive:
        return {name: torch.from_numpy(archive[name]) for name in archive.files}


def _tensors(found: object, name: str) -> dict[str, Tensor]:
    """Check that it is a state dict, or holds one under "state_dict", and widen to float32."""
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not found:
        raise WeightsError(f"{name} must hold tensors by name, it holds a {type(found).__name__}")
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"{name} must hold tensors by name, under {key!r} it holds a {type(value).__name__}"
            )
    return {
        key: value.float() if value.is_floating_point() else value for key, value in found.items()
    }


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
