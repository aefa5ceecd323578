"""What a measurement was made on: the line that stands above every table."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
from pathlib import Path

import torch

CPU_INFO = Path("/proc/cpuinfo")


def describe(*packages: str) -> str:
    """Processors, threads, versions of Python, torch and ``packages``, and the date (UTC)."""
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", *packages)]
    return ", ".join(
        [
            *([torch.cuda.get_device_name()] if torch.cuda.is_available() else []),
            f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
            f"Python {platform.python_version()}",
            *versions,
            dt.datetime.now(tz=dt.UTC).date().isoformat(),
        ]
    )


def processor() -> str:
    """The processor's name where Linux says it, else its architecture."""
    if CPU_INFO.exists():
        for line in CPU_INFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
