from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import vgg16, vgg16_bn
from torchvision.models.vgg import cfgs, make_layers

from fcn_model import FCN, NetworkSpec, build
from fcn_model.errors import WeightsError
from fcn_model.extents import Extents
from fcn_model.surgery import copy_by_name, vgg16_weights
from fcn_model.weights import read_weights
from tests.support.networks import narrow_spec, random_network

TRUNK = 26  # thirteen convolutions, a weight and a bias each


def torchvision_state(make: Callable[..., nn.Module] = vgg16) -> dict[str, Tensor]:
    with torch.device("meta"):
        return dict(make(weights=None, init_weights=False).state_dict())


def narrow_classifier(divisor: int, fc_width: int) -> nn.Sequential:
    """torchvision's VGG16 with fewer channels, its own layout of features and classifier."""
    channels = [n if n == "M" else int(n) // divisor for n in cfgs["D"]]
    last = 512 // divisor
    classifier = nn.Sequential(
        nn.Linear(last * 7 * 7, fc_width),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(fc_width, fc_width),
        nn.ReLU(),
        nn.Dropout(),
        nn.Linear(fc_width, 1000),
    )
    features = make_layers(channels)
    return nn.Sequential(OrderedDict(features=features, classifier=classifier)).eval()


def test_torchvisions_places_map_to_the_layers_of_the_same_shape_and_order() -> None:
    with torch.device("meta"):
        network = FCN(NetworkSpec(num_classes=21))
    names = network.backbone.imagenet_names
    theirs = torchvision_state()
    weights = [name for name in theirs if name.startswith("features") and name.endswith("weight")]
    ours = dict(network.named_parameters())
    assert [f"{names[name.removesuffix('.weight')]}.weight" for name in weights] == [
        name for name in ours if name.startswith("conv") and name.endswith("weight")
    ]
    for name, value in theirs.items():
        layer, _, kind = name.rpartition(".")
        if layer != "classifier.6":
            assert ours[f"{names[layer]}.{kind}"].numel() == value.numel(), name


@torch.no_grad()
def test_the_transplanted_net_is_the_classifier_on_one_224_pixel_image_without_padding() -> None:
    torch.manual_seed(0)
    classifier = narrow_classifier(16, 24)
    spec = NetworkSpec(num_classes=3, width=1 / 16, fc_width=24)
    network = build(spec).eval()
    loaded = vgg16_weights(classifier.state_dict(), network)
    assert loaded == [name for name in network.state_dict() if not name.startswith("score")]
    first = network.get_submodule("conv1_1")
    assert isinstance(first, nn.Conv2d)
    first.padding = (1, 1)  # the classifier's own, instead of the 100 that segmentation needs
    image = torch.randn(1, 3, 224, 224)
    fc7 = network.backbone.run(dict(network.named_children()), image, Extents(None))["drop7"]
    features, dense = classifier.children()
    assert isinstance(dense, nn.Sequential)
    expected = dense[:5](features(image).flatten(1))
    assert fc7.shape == (1, 24, 1, 1)
    assert expected.std() > 0.01
    torch.testing.assert_close(fc7.flatten(1), expected, rtol=1e-4, atol=1e-5)


def test_a_network_of_another_fc_width_gets_the_trunk_alone() -> None:
    network = build(NetworkSpec(num_classes=3, width=1 / 16, fc_width=8))
    fc6 = network.state_dict()["fc6.weight"].clone()
    loaded = vgg16_weights(narrow_classifier(16, 24).state_dict(), network)
    assert len(loaded) == TRUNK
    assert not [name for name in loaded if name.startswith("fc")]
    assert torch.equal(network.state_dict()["fc6.weight"], fc6)


def assert_refused_and_unchanged(tensors: dict[str, Tensor], network: FCN, *texts: str) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        vgg16_weights(tensors, network)
    for text in texts:
        assert text in str(caught.value)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_narrow_network_is_given_nothing_from_full_size_weights() -> None:
    assert_refused_and_unchanged(
        torchvision_state(),
        build(narrow_spec()),
        "do not fit FCN-8s narrow (VGG16 layout, width 0.0625, fc 16)",
        "conv1_1.weight (64, 3, 3, 3) given, (4, 3, 3, 3) wanted",
    )


def test_all_that_does_not_fit_is_listed() -> None:
    tensors = dict(narrow_classifier(16, 16).state_dict())
    del tensors["features.5.bias"]
    tensors["features.0.weight"] = tensors["features.0.weight"][:, :1]
    tensors["features.1.running_mean"] = torch.zeros(4)
    assert_refused_and_unchanged(
        tensors,
        build(narrow_spec()),
        "missing: conv2_1.bias",
        "unexpected: features.1.running_mean",
        "conv1_1.weight (4, 1, 3, 3) given, (4, 3, 3, 3) wanted",
    )


def test_the_batch_normalized_vgg16_is_refused() -> None:
    assert_refused_and_unchanged(
        torchvision_state(vgg16_bn), build(narrow_spec()), "features.1.running_mean", "more"
    )


def test_a_finer_net_starts_as_its_coarser_one_with_zero_skips() -> None:
    coarse, fine = random_network("fcn32s", seed=1), build(narrow_spec("fcn16s"))
    loaded = copy_by_name(coarse.state_dict(), fine)
    assert loaded == list(coarse.state_dict())
    for name, value in fine.state_dict().items():
        if name.startswith("score_pool4"):
            assert not value.any()
        else:
            assert torch.equal(value, coarse.state_dict()[name])


def test_published_names_are_taken_too() -> None:
    source, network = random_network(seed=1), build(narrow_spec())
    assert vgg16_weights(source.state_dict(), network) == list(source.state_dict())
    assert torch.equal(network.state_dict()["fc7.bias"], source.state_dict()["fc7.bias"])


def test_other_classes_leave_every_score_layer_fresh() -> None:
    source, network = random_network(num_classes=7), build(narrow_spec(num_classes=5))
    loaded = copy_by_name(source.state_dict(), network)
    assert not [name for name in loaded if name.startswith("score")]
    assert len(loaded) == TRUNK + 4
    assert not network.state_dict()["score_fr.weight"].any()


def test_a_finer_net_does_not_become_a_coarser_one_unnoticed() -> None:
    state = random_network("fcn8s").state_dict()
    with pytest.raises(WeightsError, match=r"unexpected: score_pool3\.bias, score_pool3\.weight"):
        copy_by_name(state, build(narrow_spec("fcn16s")))
    del state["fc7.bias"]
    with pytest.raises(WeightsError, match=r"missing: fc7\.bias"):
        copy_by_name(state, build(narrow_spec("fcn8s")))


@pytest.mark.shared_data
@torch.no_grad()
def test_the_imagenet_trunk_computes_what_torchvisions_does(shared_data: Path) -> None:
    file = shared_data / "weights" / "vgg16_torchvision_features.fp16.npz"
    tensors = read_weights(file.read_bytes(), file.name)
    network = build(NetworkSpec(num_classes=11, fc_width=8)).eval()
    assert len(vgg16_weights(tensors, network)) == TRUNK
    features = make_layers(cfgs["D"]).eval()
    features.load_state_dict({key.removeprefix("features."): tensors[key] for key in tensors})
    image = torch.randn(1, 3, 224, 224)
    first = network.get_submodule("conv1_1")
    assert isinstance(first, nn.Conv2d)
    first.padding = (1, 1)
    found = network.backbone.run(dict(network.named_children()), image, Extents(None))
    pool3, pool4 = features[:17](image), features[:24](image)
    torch.testing.assert_close(found["pool3"], pool3, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found["pool4"], pool4, rtol=1e-3, atol=1e-3)
    assert pool4.std() > 0.1
