from __future__ import annotations

import torch
from torch import nn

from fcn_model.solver import parameter_groups
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


def test_sgd_steps_are_caffes_closed_form() -> None:
    layer = nn.Linear(1, 1)
    with torch.no_grad():
        layer.weight.fill_(2.0)
        layer.bias.fill_(3.0)
    groups = parameter_groups(layer, lr=0.1, weight_decay=0.01)
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    # Caffe: v = m v + lr lr_mult (g + wd decay_mult w); w -= v
    w, b, v_w, v_b = 2.0, 3.0, 0.0, 0.0
    for gradient in (1.0, -0.5, 0.25):
        layer.weight.grad, layer.bias.grad = (
            torch.full((1, 1), gradient),
            torch.full((1,), gradient),
        )
        optimizer.step()
        v_w = 0.9 * v_w + 0.1 * (gradient + 0.01 * w)
        v_b = 0.9 * v_b + 0.2 * gradient
        w, b = w - v_w, b - v_b
        torch.testing.assert_close(layer.weight.item(), w, rtol=1e-6, atol=0)
        torch.testing.assert_close(layer.bias.item(), b, rtol=1e-6, atol=0)


def test_frozen_parameters_are_left_out() -> None:
    network = random_network()
    network.get_submodule("conv1_1").requires_grad_(False)
    groups = parameter_groups(network, lr=1.0, weight_decay=0.0)
    trained = sum(len(group["params"]) for group in groups)
    assert trained == len(list(network.parameters())) - 2
