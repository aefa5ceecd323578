"""Workers on CPUs keep the memory that a batch or a unit frees, for the next one needs the same.

glibc would give large tensors back to the system at once and take them anew, page by page, each
filled with zeros first. That was a fifth of the time of two training steps of FCN-8s at 480 x 360.
It takes more where a thread that is not the process's first computes, as in Ray's actors: 32 images
of that size took one 13.2 s with these settings and 18.6 s without (by hand, two cores).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_ARENA_MAX": "1",
}
"""Environment variables, which glibc reads when a process starts."""

LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""The heap in pages of 2 MB where Linux lends them to who asks. A training step goes through 1.6 GB
of VGG16's weights, gradients and momenta: 1.04 times the images a second, median of five pairs of
`benchmarks.training_loop` by hand. Segmenting, which has fewer, gains nothing."""


def training_memory(workers: int) -> dict[str, str]:
    """The variables of workers that train on CPUs. Several of them do without large pages.

    Two on one machine did 0.71 and 0.78 images a second with them, 0.82 and 0.79 without (by hand).
    """
    return KEEP_MEMORY | LARGE_PAGES if workers == 1 else KEEP_MEMORY


def runtime_env(environment: Mapping[str, str], *, gpu: bool) -> dict[str, Any] | None:
    """Of a worker that computes on a GPU, or else on CPUs with these variables."""
    return None if gpu else {"env_vars": dict(environment)}
