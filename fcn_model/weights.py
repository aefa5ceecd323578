"""Weights files as tensors by name. Nothing in a file is ever run."""

from __future__ import annotations

import io
import pickle
import re
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torch.serialization import safe_globals

from fcn_model.errors import WeightsError

SUFFIXES = (".pth", ".pt", ".pth.tar", ".safetensors", ".npz", ".caffemodel")

STATE_KEYS = ("state_dict", "model_state_dict", "model")
"""Where training programs keep the tensors among other things; the second is pytorch-fcn's."""

PARALLEL = "module."
"""What torch's DataParallel puts before every name."""

_TORCH_STARTS = (b"PK", b"\x80")
"""How torch.save's files begin: a zip archive, before torch 1.6 a pickle."""

_NOT_A_TENSOR = re.compile(r"GLOBAL (\S+)")
"""What torch calls a class or function that it does not make or call."""


@dataclass(frozen=True)
class WeightsFile:
    """Tensors by the names of the file, and what it calls its network, if it does.

    ``net`` is the name of a Caffe net (``CaffeNet``), or the class that pytorch-fcn's trainer
    writes beside the tensors (``FCN8sAtOnce``).
    """

    tensors: dict[str, Tensor]
    net: str = ""


def read_weights(data: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a weights file, see `read_file`."""
    return read_file(data, name).tensors


def read_file(data: bytes, name: str) -> WeightsFile:
    """Read a weights file: floating tensors as float32, on the CPU.

    ``name`` (a file name, path or URI) says by its suffix what ``data`` is: ``.pth``, ``.pt`` or
    ``.pth.tar`` (torch.save of a state dict, alone or in a training program's checkpoint, read with
    ``weights_only=True``), ``.safetensors``, ``.npz`` (read with ``allow_pickle=False``) or
    ``.caffemodel``. Raises WeightsError naming the file and what is wrong.
    """
    suffix = next((ending for ending in SUFFIXES if name.lower().endswith(ending)), None)
    if suffix is None:
        raise WeightsError(f"{name}: a weights file ends in {', '.join(SUFFIXES)}")
    readers: dict[str, Callable[[bytes], Any]] = {
        ".safetensors": safetensors.torch.load,
        ".npz": _read_npz,
        ".caffemodel": _read_caffemodel,
    }
    try:
        found = readers.get(suffix, _read_torch)(data)
    except (
        pickle.UnpicklingError,
        safetensors.SafetensorError,
        zipfile.BadZipFile,
        zlib.error,
        tokenize.TokenError,
        AssertionError,  # torch's own, of a damaged pickle
        RuntimeError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        IndexError,
        EOFError,
        OSError,
    ) as error:
        if isinstance(error, pickle.UnpicklingError) and (what := _NOT_A_TENSOR.search(str(error))):
            raise WeightsError(
                f"{name} holds more than tensors, {what[1]}, which is never run here; save a plain "
                "state dict or convert it to .safetensors"
            ) from error
        raise WeightsError(
            f"{name} cannot be read as a {suffix} file; it has {len(data)} bytes and starts with "
            f"{data[:20]!r} ({_first_sentence(error)})"
        ) from error
    return _checked(found, name)


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
            f"torchvision has no weights named {enum_name!r}; those that fit are "
            + ", ".join(f"{net}_Weights.IMAGENET1K_V1" for net in ("VGG16", "AlexNet", "GoogLeNet"))
        ) from error
    try:
        found = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"{enum_name} could not be fetched from {weights.url} ({_first_sentence(error)}); "
            "fetch the file elsewhere and name it by path or URI"
        ) from error
    return _checked(found, enum_name).tensors


class _Unread:
    """Stands for a numpy number beside the tensors, which is of no interest and is not made."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


# pytorch-fcn's trainer keeps its best score as a numpy number, of whichever numpy it ran with.
_NUMPY_NUMBER = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype")


def _read_torch(data: bytes) -> Any:
    if not data.startswith(_TORCH_STARTS):
        raise ValueError("it is no torch file")
    stand_ins: list[Any] = [(_Unread, name) for name in _NUMPY_NUMBER]
    with warnings.catch_warnings(), safe_globals(stand_ins):
        # torch warns of a pickle that it is about to refuse; the refusal says enough.
        warnings.simplefilter("ignore")
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _read_npz(data: bytes) -> dict[str, Tensor]:
    archive = np.load(io.BytesIO(data), allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise TypeError("it is a single array, not an archive of named ones")
    with archive:
        arrays = {name: archive[name] for name in archive.files}
    return {
        name: torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
        for name, array in arrays.items()
    }


def _read_caffemodel(data: bytes) -> dict[str, Any]:
    from fcn_model.caffemodel import read_caffemodel  # noqa: PLC0415  (needs protobuf)

    net, arrays = read_caffemodel(data)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {"state_dict": tensors, "arch": net}


def _checked(found: object, name: str) -> WeightsFile:
    """Find the state dict in what was read, check that it is one, and widen it to float32."""
    net = ""
    if isinstance(found, Mapping):
        for key in STATE_KEYS:
            if isinstance(found.get(key), Mapping):
                net = str(found.get("arch", ""))
                found = found[key]
                break
    if not isinstance(found, Mapping) or not found:
        raise WeightsError(f"{name} must hold tensors by name, it holds a {type(found).__name__}")
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise WeightsError(
                f"{name} must hold tensors by name, under {key!r} it holds a {type(value).__name__}"
            )
        _check_plain(value, f"{name}: {key}")
    prefix = PARALLEL if all(key.startswith(PARALLEL) for key in found) else ""
    tensors = {
        key.removeprefix(prefix): value.float() if value.is_floating_point() else value
        for key, value in found.items()
    }
    return WeightsFile(tensors, net)


def _check_plain(value: Tensor, where: str) -> None:
    """Refuse what is not an array of as many numbers as are stored."""
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise WeightsError(f"{where} must be a plain tensor, it is {value.layout} {value.dtype}")
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise WeightsError(
            f"{where} is of shape {tuple(value.shape)}, for which the file holds too few numbers"
        )


def _first_sentence(error: BaseException) -> str:
    """What a reader said; without the advice of torch, to trust a file that it refused."""
    said = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    first = re.split(r"\.\s|[\r\n]", said, maxsplit=1)[0][:200]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
