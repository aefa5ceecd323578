"""The settings of a training run, each with the sentence that ``--help`` shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pipelines.errors import InputError

UNIT_RECORDS = 16
"""Images per reference that training reads: units come in random order, so the fewer the better
mixed; of shards, a unit is at least a row group."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """The network to train."""

    head: Literal["fcn32s", "fcn16s", "fcn8s"] = "fcn8s"
    """fcn32s predicts at stride 32; fcn16s adds pool4, fcn8s adds pool4 and pool3."""
    init: str | None = None
    """Start weights by path or URI: a torchvision VGG16 state dict (.pth, .safetensors, .npz), or a
    checkpoint directory; or a torchvision name, VGG16_Weights.IMAGENET1K_V1, given internet."""
    normalization: Literal["torchvision", "caffe"] = "torchvision"
    """How the start weights saw their images. A checkpoint directory brings its own."""
    width: float = 1.0
    """Multiplies the channels of every trunk convolution; below 1 it is no longer VGG16."""
    fc_width: int = 4096
    """Channels of fc6 and fc7."""
    dropout: float = 0.5
    """Share of activations that drop6 and drop7 leave out while training; the paper's is 0.5. A
    short run learns more per image with 0."""
    skip_scales: tuple[float, float] = (1.0, 1.0)
    """Fixed factors on pool4 and pool3; at-once training in the paper has 0.01 0.0001."""


@dataclass(frozen=True, kw_only=True)
class Solver:
    """How to train."""

    epochs: int = 10
    """Passes over the training images."""
    batch_size: int = 1
    """Images per worker and step."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Biases get twice the learning rate and no decay with either."""
    lr: float = 1e-10
    """Base learning rate. The paper's 1e-10 goes with the summed loss; use about 1e-4 with AdamW
    and 1e-3 with SGD and the mean loss."""
    momentum: float = 0.99
    """Of SGD. The paper's 0.99 goes with one image per step."""
    weight_decay: float = 5e-4
    """Decay of weights, not of biases."""
    loss: Literal["sum", "mean"] = "sum"
    """sum: over the valid pixels, mean over images (the paper). mean: over the valid pixels."""
    schedule: Literal["constant", "poly"] = "constant"
    """poly: the rate falls to zero over the run as (1 - progress) ** 0.9."""
    warmup: float = 0.0
    """Share of the run in which the rate rises from zero."""
    crop: tuple[int, int] | None = None
    """Train on random windows of this height and width; whole images otherwise."""
    mirror: bool = True
    """Mirror half of the images left to right."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """bf16 is autocast: weights and sums stay fp32."""
    seed: int = 1337
    """Of initialization, order, mirroring and crops."""

    def __post_init__(self) -> None:
        positive = {"epochs": self.epochs, "batch_size": self.batch_size, "lr": self.lr}
        for name, value in positive.items():
            if not value > 0:
                raise InputError(f"solver {name} must be above 0, got {value}")
        if not 0 <= self.warmup < 1:
            raise InputError(f"solver warmup is a share of the run in [0, 1), got {self.warmup}")
        if self.crop is not None and min(self.crop) < 1:
            raise InputError(f"solver crop is a height and width of at least 1, got {self.crop}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run."""

    storage: str
    """Folder or URI under which the run is kept."""
    name: str
    """Name of the run; the same name again resumes it."""
    network: Network = Network()
    solver: Solver = Solver()
    num_workers: int = 1
    """Data-parallel workers."""
    use_gpu: bool | None = None
    """One GPU per worker. By default: if the cluster has GPUs."""
    shuffle_buffer: int = 128
    """Images from which a worker draws the next batch at random."""

    def __post_init__(self) -> None:
        for name in ("num_workers", "shuffle_buffer"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise InputError(f"name must be letters, digits and . _ -, got {self.name!r}")
