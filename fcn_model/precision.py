"""What a device is, and what it computes well: bfloat16 or not, and in which memory format."""

from __future__ import annotations

import os
import shutil
from functools import cache
from importlib.util import find_spec

import torch


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 pays on ``device``: a GPU, or a CPU with instructions for it.

    Other CPUs give the same values in many times the time of float32.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def is_nvidia(device: torch.device) -> bool:
    """Whether ``device`` is a GPU of NVIDIA's; torch calls those of AMD cuda, too."""
    return device.type == "cuda" and torch.version.hip is None


def has_kernels(device: torch.device) -> bool:
    """Whether `triton_kernels` run on ``device``: a GPU, on a machine with Triton and a C compiler.

    Without them torch gives the same in more time.
    """
    return device.type == "cuda" and _has_triton()


@cache
def _has_triton() -> bool:
    compiler = os.environ.get("CC") or shutil.which("clang") or shutil.which("gcc")
    return find_spec("triton") is not None and compiler is not None


def has_onednn() -> bool:
    """Whether products in float32 on this machine's CPU go by oneDNN's kernels for it.

    torch's own are MKL's, which on an AMD EPYC with AVX-512 take twice as long, and a little longer
    on one without. Other architectures were not measured.
    """
    vectors = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
    return vectors and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def training_format(device: torch.device, precision: str) -> torch.memory_format:
    """The memory format in which a training step takes the least time.

    Channels last, but for float32 on a CPU: there the backward pass of 3×3 convolutions takes twice
    as long in it (`python -m benchmarks.train_step`), and forward gains less than that.
    """
    plain = device.type == "cpu" and precision == "fp32"
    return torch.contiguous_format if plain else torch.channels_last
