"""What can become of an image that is no mask, and how a pass that runs out of memory is caught."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fcn_model.errors import FCNError

_T = TypeVar("_T")

_NO_MEMORY = ("DefaultCPUAllocator", "out of memory", "ALLOC_FAILED")
"""How torch's CPU allocator, drivers, and cuDNN and cuBLAS say it in a plain RuntimeError."""


class NonFiniteError(FCNError, ValueError):
    """The network gave an image scores that are infinite or not a number: it has no mask."""


class OutOfMemoryError(FCNError, MemoryError):
    """An image could not be segmented in the memory there is, not even by the smallest tiles."""


Outcome = NDArray[np.uint8] | NonFiniteError | OutOfMemoryError
"""An image's (H, W) uint8 mask, or the error that it raises where it is segmented alone."""


class Exhausted(NamedTuple):
    """A pass for which the memory did not suffice, and what the allocator said."""

    message: str


def attempt(work: Callable[[], _T]) -> _T | Exhausted:
    """What ``work`` returns, or that memory ran out in it; other errors are raised.

    Then the tensors of the attempt are gone, and a GPU's cached blocks are given back.
    """
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        message = f"{type(error).__name__}: {error}".partition("\n")[0]
        if not (
            isinstance(error, MemoryError | torch.OutOfMemoryError)
            or any(words in message for words in _NO_MEMORY)
        ):
            raise
    # Only here the error is gone, whose traceback keeps the attempt's tensors.
    torch.cuda.empty_cache()  # does nothing where no GPU was used
    return Exhausted(message)
