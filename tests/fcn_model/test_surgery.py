from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import alexnet, googlenet, vgg16, vgg16_bn
from torchvision.models.vgg import cfgs, make_layers

from fcn_model import FCN, NetworkSpec, build
from fcn_model.errors import WeightsError
from fcn_model.extents import Extents
from fcn_model.layers import dense_bilinear
from fcn_model.published import with_scales
from fcn_model.spec import AT_ONCE_SCALES
from fcn_model.surgery import fill, fill_wholly, join
from fcn_model.weights import read_weights
from tests.support.networks import narrow_spec, random_network
from tests.support.randomized import randomized

TRUNK = 26  # thirteen convolutions, a weight and a bias each
STREAMS = (("color", 3), ("hha", 3))


def state_of(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def on_meta(make: Any, **options: Any) -> dict[str, Tensor]:
    with torch.device("meta"):
        return dict(make(weights=None, **options).state_dict())


def as_torchvisions(network: FCN) -> dict[str, Tensor]:
    """The trunk as torchvision would have it, with a classifier behind."""
    theirs = {ours: name for name, ours in network.backbone.imagenet_names.items()}
    tensors = {"classifier.6.weight": torch.ones(9, 2), "classifier.6.bias": torch.ones(9)}
    for name, value in state_of(network).items():
        layer, _, kind = name.rpartition(".")
        if layer in theirs:
            dense = layer in network.backbone.fully_connected and kind == "weight"
            tensors[f"{theirs[layer]}.{kind}"] = value.flatten(1) if dense else value
    return tensors


@pytest.mark.parametrize(
    ("backbone", "theirs"),
    [
        ("vgg16", on_meta(vgg16, init_weights=False)),
        ("alexnet", on_meta(alexnet)),
        ("googlenet_bn", on_meta(googlenet, init_weights=False)),
    ],
)
def test_every_place_of_torchvisions_net_has_a_layer_of_its_size_in_its_order(
    backbone: Any, theirs: dict[str, Tensor]
) -> None:
    with torch.device("meta"):
        network = FCN(NetworkSpec(num_classes=21, backbone=backbone))
    names = network.backbone.imagenet_names
    ours = dict(network.named_parameters())
    places = [
        (name.removesuffix(".weight").removesuffix(".conv"), value.numel())
        for name, value in theirs.items()
        if name.endswith(".weight") and ".bn." not in name and not name.startswith("aux")
    ]
    last = network.backbone.classifier
    assert [place for place, _ in places] == [*names, last]
    assert [names[place] for place in names] == [
        name.removesuffix(".weight")
        for name in ours
        if name.endswith(".weight") and not name.startswith("score")
    ]
    for place, count in places:
        assert place == last or ours[f"{names[place]}.weight"].numel() == count, place


def test_a_network_of_another_fc_width_gets_the_trunk_alone() -> None:
    network = build(NetworkSpec(num_classes=3, width=1 / 16, fc_width=8))
    before = state_of(network)
    loaded = fill(as_torchvisions(random_network(seed=1)), network)
    assert len(loaded) == TRUNK
    assert not [name for name in loaded if name.startswith("fc")]
    assert torch.equal(network.state_dict()["fc6.weight"], before["fc6.weight"])


def test_fully_connected_layers_are_given_whole_or_not_at_all() -> None:
    tensors = as_torchvisions(random_network(seed=1))
    without = {name: value for name, value in tensors.items() if "classifier" not in name}
    assert len(fill(without, build(narrow_spec()))) == TRUNK
    del tensors["classifier.3.weight"]
    with pytest.raises(WeightsError, match=r"wanted and missing: fc7\.weight \(16, 16, 1, 1\)"):
        fill(tensors, build(narrow_spec()))


def assert_refused_and_unchanged(tensors: dict[str, Tensor], network: FCN, *texts: str) -> None:
    before = state_of(network)
    with pytest.raises(WeightsError) as caught:
        fill(tensors, network)
    for text in texts:
        assert text in str(caught.value)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_narrow_network_is_given_nothing_from_full_size_weights() -> None:
    assert_refused_and_unchanged(
        on_meta(vgg16, init_weights=False) | {"features.0.bias": torch.ones(64)},
        build(narrow_spec()),
        "do not fit FCN-8s narrow (VGG16 layout, width 0.0625, fc 16)",
        "conv1_1.weight (64, 3, 3, 3) given, (4, 3, 3, 3) wanted",
    )


def test_all_that_does_not_fit_is_listed_with_both_sides() -> None:
    tensors = as_torchvisions(random_network())
    del tensors["features.5.bias"]
    tensors["features.0.weight"] = tensors["features.0.weight"][:, :1]
    tensors["features.1.running_mean"] = torch.zeros(4)
    tensors["features.2.bias"] = torch.tensor([0, 1, 2, torch.inf])
    tensors["features.5.weight"] = tensors["features.5.weight"].long()
    assert_refused_and_unchanged(
        tensors,
        build(narrow_spec()),
        "wanted and missing: conv2_1.bias (8,)",
        "given and unexpected: features.1.running_mean (4,)",
        "conv1_1.weight (4, 1, 3, 3) given, (4, 3, 3, 3) wanted",
        "not floating point: conv2_1.weight torch.int64;",
        "not finite numbers: conv1_2.bias",
    )


def test_a_layer_under_two_names_is_refused() -> None:
    tensors = as_torchvisions(random_network())
    tensors["conv1_1.bias"] = torch.zeros(4)
    assert_refused_and_unchanged(tensors, build(narrow_spec()), "has conv1_1.bias twice")


def test_the_batch_normalized_vgg16_is_refused() -> None:
    names = dict.fromkeys(on_meta(vgg16_bn, init_weights=False), torch.ones(1))
    assert_refused_and_unchanged(
        names, build(narrow_spec()), "features.1.running_mean (1,)", "more"
    )


def test_a_finer_net_starts_as_its_coarser_one_with_zero_skips() -> None:
    state = state_of(random_network("fcn32s", seed=1))
    for head, skips in (("fcn16s", ["score_pool4"]), ("fcn8s", ["score_pool3"])):
        fine = build(narrow_spec(head))  # type: ignore[arg-type]
        assert set(fill(state, fine)) == set(state)
        for name, value in fine.state_dict().items():
            if name.rpartition(".")[0] in skips:
                assert not value.any()
            else:
                assert torch.equal(value, state[name])
        state = state_of(fine)


def test_other_classes_leave_every_score_layer_fresh() -> None:
    source, network = random_network(num_classes=7), build(narrow_spec(num_classes=5))
    loaded = fill(source.state_dict(), network)
    assert not [name for name in loaded if name.startswith("score")]
    assert len(loaded) == TRUNK + 4
    assert not network.state_dict()["score_fr.weight"].any()


def test_each_task_starts_from_its_own_scores_if_it_has_the_same_classes() -> None:
    coarse = random_network("fcn32s", more_tasks=(("geo", 3),), seed=1)
    state = state_of(coarse)
    assert fill(state, build(narrow_spec("fcn16s", more_tasks=(("geo", 3),)))) == list(state)
    fewer = build(narrow_spec("fcn16s", more_tasks=(("geo", 2),)))
    expected = {name for name in state if "geo" not in name}
    assert set(fill(state, fewer)) == expected
    assert not fewer.state_dict()["score_fr_geo.weight"].any()
    alone = build(narrow_spec("fcn16s"))
    assert set(fill(state, alone)) == {name for name in state if "score" not in name}


def test_a_finer_net_does_not_become_a_coarser_one_unnoticed() -> None:
    state = state_of(random_network("fcn8s"))
    with pytest.raises(WeightsError, match=r"unexpected: score_pool3\.weight .*score_pool3\.bias"):
        fill(state, build(narrow_spec("fcn16s")))
    del state["fc7.bias"]
    with pytest.raises(WeightsError, match=r"missing: fc7\.bias \(16,\)"):
        fill(state, build(narrow_spec("fcn8s")))


@pytest.mark.parametrize(
    ("theirs", "ours"), [(AT_ONCE_SCALES, (1.0, 1.0)), ((1.0, 1.0), AT_ONCE_SCALES)]
)
@torch.no_grad()
def test_other_factors_before_the_skips_leave_the_scores_as_they_were(
    theirs: tuple[float, float], ours: tuple[float, float]
) -> None:
    more: dict[str, Any] = {"backbone": "alexnet", "more_tasks": (("geo", 3),)}
    nets = [random_network(seed=seed, skip_scales=theirs, **more) for seed in (1, 2)]
    given = [with_scales(state_of(net), net.backbone.skips, theirs) for net in nets]
    images = torch.randn(1, 6, 20, 30) * 50
    alone = build(narrow_spec(skip_scales=ours, **more)).eval()
    assert set(fill(given[0], alone)) == set(nets[0].state_dict())
    wanted = [net(images[:, 3 * i : 3 * i + 3]) for i, net in enumerate(nets)]
    torch.testing.assert_close(alone(images[:, :3]), wanted[0], rtol=1e-5, atol=1e-4)
    both = build(narrow_spec(skip_scales=ours, streams=STREAMS, **more)).eval()
    join({"color": given[0], "hha": given[1]}, both)
    torch.testing.assert_close(both(images), sum(wanted) / 2, rtol=1e-5, atol=1e-4)
    # Bit by bit where the factors are the same.
    same = build(narrow_spec(skip_scales=theirs, **more))
    fill(given[0], same)
    assert all(torch.equal(value, nets[0].state_dict()[n]) for n, value in state_of(same).items())
    given[0]["scale_pool2.weight"] = torch.full((3,), 0.5)
    with pytest.raises(WeightsError, match=r"unexpected: scale_pool2\.weight \(3,\)"):
        fill(given[0], alone)


def test_learned_kernels_go_by_name_to_a_net_that_learns_them() -> None:
    coarse = randomized(build(narrow_spec("fcn16s", upsampling="learned")))
    state = state_of(coarse)
    fine = build(narrow_spec("fcn8s", upsampling="learned"))
    loaded = fill(state, fine)
    assert torch.equal(fine.state_dict()["upscore2.weight"], state["upscore2.weight"])
    # Another stage's kernel has no place here, and the finer ones start bilinear.
    assert "upscore16.weight" not in loaded
    assert torch.equal(fine.state_dict()["upscore8.weight"], dense_bilinear(5, 16))
    assert_refused_and_unchanged(state, build(narrow_spec("fcn16s")), "unexpected: upscore2.weight")


def test_kernels_that_are_plainly_bilinear_are_constants() -> None:
    state = state_of(random_network("fcn16s"))
    wanted = list(state)
    state["upscore2.weight"] = dense_bilinear(5, 4)
    state["upscore16.weight"] = dense_bilinear(1, 32).expand(5, 1, -1, -1)  # one group a class
    for how in (fill, fill_wholly):
        network = build(narrow_spec("fcn16s"))
        assert how(state, network) == wanted
    state["upscore16.weight"] = dense_bilinear(5, 16)
    assert_refused_and_unchanged(
        state, build(narrow_spec("fcn16s")), "unexpected: upscore16.weight (5, 5, 16, 16)"
    )


def test_a_fourth_input_channel_starts_as_the_mean_of_three() -> None:
    source = random_network("fcn32s", seed=1)
    network = build(narrow_spec("fcn32s", streams=(("", 4),)))
    assert set(fill(source.state_dict(), network)) == set(source.state_dict())
    given, found = source.state_dict(), network.state_dict()
    assert torch.equal(found["conv1_1.weight"][:, :3], given["conv1_1.weight"])
    mean = sum(given["conv1_1.weight"][:, channel] for channel in range(3)) / 3
    torch.testing.assert_close(found["conv1_1.weight"][:, 3], mean)
    assert torch.equal(found["conv1_1.bias"], given["conv1_1.bias"])
    # The reference calls the first convolution of that net so; it already has four channels.
    theirs = {name.replace("conv1_1.", "conv1_1_bgrd."): value for name, value in found.items()}
    again = build(narrow_spec("fcn32s", streams=(("", 4),)))
    fill(theirs, again)
    assert torch.equal(again.state_dict()["conv1_1.weight"], found["conv1_1.weight"])


def test_two_streams_are_joined_from_a_net_each() -> None:
    color, hha = (random_network("fcn32s", seed=seed) for seed in (1, 2))
    network = build(narrow_spec("fcn32s", streams=STREAMS)).eval()
    filled = join({"color": color.state_dict(), "hha": hha.state_dict()}, network)
    assert set(filled) == set(network.state_dict())
    found = network.state_dict()
    assert torch.equal(found["conv1_1color.weight"], color.state_dict()["conv1_1.weight"])
    assert torch.equal(found["score_frhha.bias"], hha.state_dict()["score_fr.bias"])
    images = torch.randn(1, 6, 20, 30)
    with torch.no_grad():  # upsampling is linear, so averaging scores averages what comes out
        mean = (color(images[:, :3]) + hha(images[:, 3:])) / 2
        torch.testing.assert_close(network(images), mean, rtol=1e-4, atol=1e-4)
    with pytest.raises(WeightsError, match=r"streams \['color', 'hha'\], got some for \['color'\]"):
        join({"color": color.state_dict()}, network)
    whole = build(narrow_spec("fcn32s", streams=STREAMS))
    assert set(fill(found, whole)) == set(found)


def test_one_classifier_fills_every_stream() -> None:
    source = random_network(seed=1)
    network = build(narrow_spec("fcn32s", streams=STREAMS))
    filled = fill(as_torchvisions(source), network)
    assert len(filled) == 2 * (TRUNK + 4)
    found = network.state_dict()
    for stream in ("color", "hha"):
        assert torch.equal(found[f"fc6{stream}.weight"], source.state_dict()["fc6.weight"])
    whole = {n: v for n, v in source.state_dict().items() if not n.startswith("score")}
    broken = {n: v for n, v in whole.items() if n not in {"conv2_1.bias", "fc7.bias"}}
    with pytest.raises(WeightsError, match=r"missing: conv2_1hha\.bias .*fc7hha\.bias"):
        join({"color": whole, "hha": broken}, network)


@pytest.mark.shared_data
@pytest.mark.parametrize("backbone", ["vgg16", "alexnet"])
@torch.no_grad()
def test_the_imagenet_trunk_computes_what_torchvisions_does(
    shared_data: Path, backbone: Any
) -> None:
    file = shared_data / "weights" / f"{backbone}_torchvision_features.fp16.npz"
    tensors = read_weights(file.read_bytes(), file.name)
    network = build(NetworkSpec(num_classes=11, fc_width=8, backbone=backbone)).eval()
    assert set(fill(tensors, network)) == {
        name for name in network.state_dict() if not name.startswith(("fc", "score"))
    }
    features = make_layers(cfgs["D"]) if backbone == "vgg16" else alexnet().features
    features.load_state_dict({key.removeprefix("features."): tensors[key] for key in tensors})
    image = torch.randn(1, 3, 224, 224)
    trunk = network.backbone
    first = network.get_submodule(trunk.steps[0].name)
    assert isinstance(first, nn.Conv2d)
    first.padding = (1, 1) if backbone == "vgg16" else (2, 2)
    found = trunk.run(dict(network.named_children()), image, Extents(None))
    places = (24, 17) if backbone == "vgg16" else (6, 3)
    for skip, place in zip(trunk.skips, places, strict=True):
        wanted = features.eval()[:place](image)
        torch.testing.assert_close(found[skip], wanted, rtol=1e-3, atol=1e-3)
        assert wanted.std() > 0.1
