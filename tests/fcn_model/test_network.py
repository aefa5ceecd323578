from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from fcn_model import FCN, NetworkSpec, build
from fcn_model.layers import bilinear_kernel
from fcn_model.losses import summed_cross_entropy, weight_sums
from fcn_model.solver import parameter_groups
from fcn_model.spec import Head
from tests.support.networks import narrow_spec, random_network

HEADS: tuple[Head, ...] = ("fcn32s", "fcn16s", "fcn8s")


@pytest.mark.parametrize(
    ("head", "count"),
    [("fcn32s", 134_346_581), ("fcn16s", 134_357_354), ("fcn8s", 134_362_751)],
)
def test_parameter_counts_are_those_of_the_published_nets(head: Head, count: int) -> None:
    with torch.device("meta"):
        network = FCN(NetworkSpec(num_classes=21, head=head))
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_parameters_have_the_papers_names() -> None:
    with torch.device("meta"):
        network = FCN(NetworkSpec(num_classes=21))
    convolutions = [
        f"conv{block}_{index}"
        for block, count in enumerate((2, 2, 3, 3, 3), start=1)
        for index in range(1, count + 1)
    ]
    layers = [*convolutions, "fc6", "fc7", "score_fr", "score_pool4", "score_pool3"]
    wanted = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert set(network.state_dict()) == wanted
    assert network.stride == 32


def reference_scores(state: dict[str, Tensor], image: Tensor, head: Head) -> Tensor:
    """The published nets written out with the published numbers (voc-fcn*/net.py)."""

    def conv(x: Tensor, name: str, pad: int = 0) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=pad)

    def deconv(x: Tensor, kernel: int, step: int) -> Tensor:
        # A dense kernel with the bilinear weights on the channel diagonal, as Caffe's.
        weight = torch.zeros(x.shape[1], x.shape[1], kernel, kernel, dtype=x.dtype)
        weight[range(x.shape[1]), range(x.shape[1])] = bilinear_kernel(kernel).to(x.dtype)
        return F.conv_transpose2d(x, weight, stride=step)

    def add(x: Tensor, pooled: Tensor, offset: int) -> Tensor:
        height, width = x.shape[2:]
        return x + pooled[:, :, offset : offset + height, offset : offset + width]

    pools = {}
    x = image
    for block, count in enumerate((2, 2, 3, 3, 3), start=1):
        for index in range(1, count + 1):
            x = F.relu(conv(x, f"conv{block}_{index}", 100 if block == index == 1 else 1))
        x = pools[block] = F.max_pool2d(x, 2, 2, ceil_mode=True)
    x = conv(F.relu(conv(F.relu(conv(x, "fc6")), "fc7")), "score_fr")
    if head == "fcn32s":
        x, offset = deconv(x, 64, 32), 19
    else:
        x = add(deconv(x, 4, 2), conv(pools[4], "score_pool4"), 5)
        if head == "fcn16s":
            x, offset = deconv(x, 32, 16), 27
        else:
            x = add(deconv(x, 4, 2), conv(pools[3], "score_pool3"), 9)
            x, offset = deconv(x, 16, 8), 31
    return x[:, :, offset : offset + image.shape[2], offset : offset + image.shape[3]]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 7), (64, 96)])
def test_scores_are_those_of_the_published_architecture(head: Head, size: tuple[int, int]) -> None:
    network = random_network(head, dtype=torch.float64)
    image = torch.randn(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        scores = network(image)
        expected = reference_scores(network.state_dict(), image, head)
    assert scores.shape == (1, 5, *size)
    assert expected.std() > 0.01
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("classes", [3, 21])
def test_the_mean_loss_before_the_first_step_is_ln_k(head: Head, classes: int) -> None:
    network = build(narrow_spec(head, classes)).train()
    labels = torch.randint(0, classes, (2, 20, 30))
    labels[:, :3] = 255
    losses = summed_cross_entropy(network(torch.randn(2, 3, 20, 30)), labels, 255)
    means = losses / weight_sums(labels, 255)
    assert means.tolist() == pytest.approx([math.log(classes)] * 2, 1e-6)


def test_at_once_scales_act_on_the_skip_features_before_their_scores() -> None:
    plain = random_network(dtype=torch.float64)
    spec = NetworkSpec(**{**plain.spec.to_dict(), "skip_scales": (0.01, 0.0001)})
    at_once = build(spec).double().eval()
    at_once.load_state_dict(plain.state_dict())
    with torch.no_grad():
        plain.get_parameter("score_pool4.weight").mul_(0.01)
        plain.get_parameter("score_pool3.weight").mul_(0.0001)
        image = torch.randn(1, 3, 24, 24, dtype=torch.float64)
        torch.testing.assert_close(at_once(image), plain(image))


def test_scores_stay_float32_under_autocast() -> None:
    network = random_network()
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = network(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = network(image)
    assert scores.dtype == torch.float32
    # Nine bits a product, over seventeen layers: about one part in a hundred of the scores' spread,
    # and not the same part on every processor.
    assert (scores - exact).std() < 0.02 * exact.std()
    assert len(scores.unique()) > 0.5 * scores.numel()  # bfloat16 scores would repeat


def test_a_seed_decides_the_parameters_and_leaves_the_global_random_state() -> None:
    before = torch.get_rng_state()
    first, again, other = (build(narrow_spec(), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
    weight = "conv3_2.weight"
    assert not torch.equal(first.state_dict()[weight], other.state_dict()[weight])


def test_a_narrow_net_learns_from_scratch() -> None:
    torch.manual_seed(0)
    spec = NetworkSpec(num_classes=3, width=0.125, fc_width=64)
    network = build(spec).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(parameter_groups(network, lr=1e-3, weight_decay=1e-4))
    colors = torch.tensor([[-1.0, 0, 1], [1, 0.5, -1], [0, -1, 0]])
    labels = torch.tensor([[[0, 1], [2, 0]]]).repeat_interleave(16, 1).repeat_interleave(16, 2)
    images = colors[labels].permute(0, 3, 1, 2) + 0.3 * torch.randn(1, 3, 32, 32)
    losses = []
    for _ in range(25):
        loss = summed_cross_entropy(network(images), labels, 255).sum() / labels.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(3), 1e-5)
    assert losses[-1] < 0.5 * math.log(3), losses
