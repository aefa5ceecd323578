from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fcn_model.solver import parameter_groups, retimed
from tests.support.networks import random_network


def test_every_parameter_is_in_one_group_and_biases_learn_twice_as_fast_without_decay() -> None:
    network = random_network()
    weights, biases = parameter_groups(network, lr=1e-10, weight_decay=5e-4)
    named = dict(network.named_parameters())
    assert (weights["lr"], weights["weight_decay"]) == (1e-10, 5e-4)
    assert (biases["lr"], biases["weight_decay"]) == (2e-10, 0)
    assert {id(value) for value in weights["params"]} == {
        id(value) for name, value in named.items() if name.endswith("weight")
    }
    assert len(weights["params"]) + len(biases["params"]) == len(named)


def test_in_caffenet_only_the_biases_of_score_layers_are_fast_and_free_of_decay() -> None:
    network = random_network()
    groups = parameter_groups(network, lr=1.0, weight_decay=0.1, only_scores=True)
    fast = {id(value) for value in groups[1]["params"]}
    assert fast == {
        id(network.get_parameter(f"{layer}.bias"))
        for layer in ("score_fr", "score_pool4", "score_pool3")
    }
    assert len(groups[0]["params"]) + 3 == len(list(network.parameters()))


@pytest.mark.parametrize("iter_size", [1, 3])
def test_sgd_steps_are_caffes_closed_form(iter_size: int) -> None:
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(2.0)
        layer.bias.fill_(3.0)
    groups = parameter_groups(layer, lr=0.1, weight_decay=0.01)
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    # Caffe: v = m v + lr lr_mult (g / iter_size + wd decay_mult w); w -= v
    w, b, v_w, v_b = 2.0, 3.0, 0.0, 0.0
    gradients = np.random.default_rng(0).normal(size=(4, iter_size))
    for passes in gradients:
        optimizer.zero_grad()
        for gradient in passes:  # d/dw and d/db of gradient / iter_size * (w + b)
            (layer(torch.ones(1, 1)) * gradient / iter_size).sum().backward()
        optimizer.step()
        g = passes.sum() / iter_size
        v_w = 0.9 * v_w + 0.1 * (g + 0.01 * w)
        v_b = 0.9 * v_b + 0.2 * g
        w, b = w - v_w, b - v_b
        torch.testing.assert_close(layer.weight.item(), w, rtol=1e-6, atol=0)
        torch.testing.assert_close(layer.bias.item(), b, rtol=1e-6, atol=0)


@pytest.mark.parametrize("images", [1, 2, 8])
def test_larger_steps_keep_the_recipes_course_per_image(images: int) -> None:
    """Gradients come at the first image of each group; then both weights agree at every step."""
    lr, momentum = 0.01, 0.99
    new_lr, new_momentum = retimed(lr, momentum, images)
    w = v = w_large = v_large = 0.0
    for gradient in np.random.default_rng(1).normal(size=20):
        for index in range(images):
            v = momentum * v + lr * (gradient if index == 0 else 0.0)
            w -= v
        v_large = new_momentum * v_large + new_lr * gradient / images
        w_large -= v_large
        assert w_large == pytest.approx(w, rel=1e-9)


def test_retiming_is_the_papers_equivalence_and_undoes_itself() -> None:
    # Heavy learning with one image a step is momentum .818 with 20; .9 with 20 is .99475 with one.
    assert retimed(1.0, 0.99, 20)[1] == pytest.approx(0.818, abs=5e-4)
    assert retimed(1.0, 0.9, 1 / 20)[1] == pytest.approx(0.99475, abs=5e-6)
    assert retimed(0.3, 0.9, 1.0) == pytest.approx((0.3, 0.9))
    assert retimed(*retimed(0.3, 0.9, 7.0), 1 / 7) == pytest.approx((0.3, 0.9))
    assert retimed(0.3, 0.0, 4.0) == pytest.approx((1.2, 0.0))
    lr, momentum = retimed(0.3, 0.9, 4.0)  # an image moves as far in the long run
    assert lr / (1 - momentum) / 4 == pytest.approx(0.3 / (1 - 0.9))


def test_frozen_parameters_are_left_out() -> None:
    network = random_network()
    network.get_submodule("conv1_1").requires_grad_(False)
    groups = parameter_groups(network, lr=1.0, weight_decay=0.0)
    trained = sum(len(group["params"]) for group in groups)
    assert trained == len(list(network.parameters())) - 2
