"""A checkpoint for the generated scenes, small enough for tests."""

from __future__ import annotations

from pathlib import Path

from fcn_model import ModelConfig, checkpoint
from fcn_model.normalize import TORCHVISION
from fcn_model.spec import Head
from pipelines.datasets import scenes
from tests.support.networks import random_network


def save_checkpoint(directory: Path, *, head: Head = "fcn8s", seed: int = 0) -> ModelConfig:
    """Write a network whose masks hold several classes."""
    network = random_network(head, num_classes=len(scenes.CLASSES), seed=seed)
    config = ModelConfig(spec=network.spec, classes=scenes.CLASSES, normalization=TORCHVISION)
    return checkpoint.save(directory, network, config)
