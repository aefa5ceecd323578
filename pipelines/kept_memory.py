"""Workers on CPUs keep the memory that a batch frees, for the next one needs the same.

glibc would give large tensors back to the system at once and take them anew, page by page, each
filled with zeros first. That was a fifth of the time of two training steps of FCN-8s at 480 x 360.
It takes more where a thread that is not the process's first computes, as in Ray's actors: 32 images
of that size took one 13.2 s with these settings and 18.6 s without (by hand, two cores).
"""

from __future__ import annotations

from typing import Any

KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_ARENA_MAX": "1",
}
"""Environment variables, which glibc reads when a process starts."""


def runtime_env(*, gpu: bool) -> dict[str, Any] | None:
    """Of a worker that computes on a GPU, or on CPUs."""
    return None if gpu else {"env_vars": KEEP_MEMORY}
