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


def resident(field: str, process: int | str = "self") -> int:
    """Bytes of a process in memory, by a field of its /proc/PID/status, such as VmRSS or VmHWM.

    Raises OSError if the process has ended, or this is not Linux.
    """
    status = Path("/proc") / str(process) / "status"
    for line in status.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise ProcessLookupError(f"{status} has no {field}: the process has ended")
