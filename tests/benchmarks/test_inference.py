"""The plain network that ours is timed against computes what ours computes."""

from __future__ import annotations

import pytest
import torch

from benchmarks.inference import Plain
from fcn_model import ClassList, ModelConfig
from fcn_model.normalize import TORCHVISION
from tests.support.networks import random_network


@pytest.mark.parametrize("skip_scales", [(1.0, 1.0), (0.01, 0.0001)])
def test_the_plain_network_has_the_scores_of_ours(skip_scales: tuple[float, float]) -> None:
    network = random_network("fcn8s", skip_scales=skip_scales, upsampling="fixed")
    with torch.no_grad():  # so that each skip counts for as much as if it were not scaled
        for skip, scale in zip(("pool4", "pool3"), skip_scales, strict=True):
            network.get_parameter(f"score_{skip}.weight").div_(scale)
    classes = ClassList(names=tuple(f"class {index}" for index in range(network.spec.num_classes)))
    config = ModelConfig(spec=network.spec, classes=classes, normalization=TORCHVISION)
    images = torch.randn((1, 3, 61, 90), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = network(images)
        made = Plain(network, config).network(images)
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-5 * float(wanted.abs().max()))
