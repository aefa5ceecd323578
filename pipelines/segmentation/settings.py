"""The settings of a bulk segmentation, each with the sentence that ``--help`` shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipelines.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """One bulk segmentation."""

    checkpoint: str
    """Checkpoint directory, by path or URI."""
    output: str
    """Folder or URI; masks go to data/gen=.../ under it."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the network's arithmetic. It is part of the generation: another precision, other masks."""
    task: str | None = None
    """Of a network with several tasks, the one to segment, such as geo; by default the first."""
    num_actors: int = 1
    """Copies of the network that run at a time; one GPU each if the cluster has GPUs."""
    batch_pixels: int = 2_000_000
    """Pixels, with the network's padding, that run through the network as one batch."""
    max_pixels: int = 40_000_000
    """Larger images become error rows instead of being decoded."""

    def __post_init__(self) -> None:
        for name in ("num_actors", "batch_pixels", "max_pixels"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
