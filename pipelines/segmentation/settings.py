"""The settings of bulk segmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipelines.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SegmentConfig:
    """What to segment with, and where the masks go."""

    checkpoint: str
    """Checkpoint directory, by path or URI."""
    output: str
    """Folder or URI; masks go to data/gen=.../ under it."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the network's arithmetic. It is part of the generation: another precision, other masks."""
    task: str | None = None
    """Of a network with several tasks, the one to segment, such as geo; by default the first."""
    num_actors: int = 1
    """Copies of the network that run at a time; one GPU each if the cluster has GPUs. On CPUs they
    share the cores; a small network does more with one for each core."""
    batch_pixels: int = 2_000_000
    """Pixels, with the network's padding, that run through the network as one batch; an actor with
    several CPU cores has two batches in work."""
    tile_pixels: int = 8_000_000
    """Larger images, counted likewise, run in overlapping tiles; the mask stays the same."""
    max_pixels: int = 40_000_000
    """Larger images become error rows instead of being decoded."""
    record_seconds: float = 120.0
    """Time that decoding one image may take before it counts as hung, and becomes an error row."""
    record_bytes: int = 8 << 30
    """Memory that one image may take when its unit is done alone, after it has killed workers."""
    replace_changed: bool = False
    """Segment input that has changed since again, and put the new masks in place of the old."""
    retry_errors: bool = False
    """Do units anew that have error rows which may pass, such as of a failing store."""
    retry_parked: bool = False
    """Try shards again that could not be read in three runs."""
    max_error_rate: float = 1.0
    """If a larger share of this run's rows are errors, its masks are kept but not published."""
    max_constant_rate: float = 1.0
    """The same for masks of a single class, which is what a broken network often gives."""

    def __post_init__(self) -> None:
        for name in ("num_actors", "batch_pixels", "tile_pixels", "max_pixels", "record_bytes"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.record_seconds > 0:
            raise InputError(f"record_seconds must be positive, got {self.record_seconds}")
        for name in ("max_error_rate", "max_constant_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
