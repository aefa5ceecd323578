from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fcn_model.precision import has_bf16

CPU_INFO = Path("/proc/cpuinfo")


@pytest.mark.skipif(not CPU_INFO.exists(), reason="only Linux lists a processor's flags there")
def test_a_cpu_has_bf16_where_linux_lists_an_instruction_for_it() -> None:
    text = CPU_INFO.read_text().lower()
    flags = {
        flag
        for line in text.splitlines()
        if line.startswith(("flags", "features"))
        for flag in line.split()
    }
    assert has_bf16(torch.device("cpu")) == bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def test_a_device_without_memory_computes_nothing() -> None:
    assert not has_bf16(torch.device("meta"))
