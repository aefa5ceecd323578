"""A checkpoint and scenes small enough for tests."""

from __future__ import annotations

from pathlib import Path

import torch

from fcn_model import ModelConfig, NetworkSpec, build, checkpoint
from fcn_model.normalize import TORCHVISION
from pipelines.datasets import scenes

SPEC = NetworkSpec(num_classes=len(scenes.CLASSES), head="fcn8s", width=1 / 16, fc_width=16)


def save_checkpoint(directory: Path, *, seed: int = 0, spec: NetworkSpec = SPEC) -> ModelConfig:
    """Write a network with random scores, so that its masks hold several classes."""
    network = build(spec, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("score"):
                parameter.normal_(0, 1, generator=generator)
    config = ModelConfig(spec=spec, classes=scenes.CLASSES, normalization=TORCHVISION)
    return checkpoint.save(directory, network, config)
