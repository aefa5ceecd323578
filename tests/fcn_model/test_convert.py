from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fcn_model import FCN, NetworkSpec, build
from fcn_model.convert import convert, identify
from fcn_model.errors import SpecError, WeightsError
from fcn_model.layers import dense_bilinear
from fcn_model.spec import AT_ONCE_SCALES, BackboneName, Head, Stream, Task
from fcn_model.weights import WeightsFile, read_file
from tests.support.caffemodels import caffemodel
from tests.support.pytorch_fcn import STAGES, PytorchFCN
from tests.support.randomized import randomized

SIZES = ((33, 47), (1, 1))
NARROW = {"wide": 4, "fc": 16}


def with_bilinear(net: PytorchFCN, names: tuple[str, ...]) -> PytorchFCN:
    """pytorch-fcn's net as it is before training, as far as the named layers go."""
    with torch.no_grad():
        for name in names:
            weight = net.get_submodule(name).weight
            assert isinstance(weight, Tensor)
            weight.copy_(dense_bilinear(len(weight), weight.shape[-1]))
    return net


@torch.no_grad()
def assert_same_scores(network: FCN, net: PytorchFCN) -> None:
    """To 1e-4 of the range and with equal masks, at sizes that divide by nothing."""
    generator = torch.Generator().manual_seed(5)
    for height, width in SIZES:
        image = torch.randn(1, 3, height, width, generator=generator) * 60
        wanted, found = net(image), network.eval()(image)
        assert found.shape == wanted.shape
        assert wanted.max() > wanted.min()
        assert (found - wanted).abs().max() <= 1e-4 * (wanted.max() - wanted.min())
        assert torch.equal(found.argmax(1), wanted.argmax(1))


@pytest.mark.parametrize("kind", STAGES)
def test_pytorch_fcns_nets_give_the_same_scores_whatever_their_parameters(kind: str) -> None:
    net = PytorchFCN(kind, 5, **NARROW)
    found = convert(WeightsFile(net.state_dict(), net=kind))
    spec = found.network.spec
    assert (spec.width, spec.fc_width, spec.num_classes) == (1 / 16, 16, 5)
    assert (spec.upsampling, found.origin, found.fresh) == ("learned", "caffe", ())
    assert spec.skip_scales == (AT_ONCE_SCALES if kind == "FCN8sAtOnce" else (1, 1))
    assert_same_scores(found.network, net)


@pytest.mark.parametrize("kind", STAGES)
def test_bilinear_kernels_in_the_file_are_ours_and_no_parameters(kind: str) -> None:
    net = with_bilinear(PytorchFCN(kind, 5, **NARROW), tuple(STAGES[kind]))
    found = convert(WeightsFile(net.state_dict(), net=kind))
    assert found.network.spec.upsampling == "fixed"
    assert not [name for name, _ in found.network.named_parameters() if "upscore" in name]
    assert_same_scores(found.network, net)


def test_a_last_kernel_that_was_not_trained_stays_fixed() -> None:
    net = with_bilinear(PytorchFCN("FCN8s", 5, **NARROW), ("upscore8",))
    found = convert(WeightsFile(net.state_dict()))
    assert found.network.spec.upsampling == "intermediate"
    assert_same_scores(found.network, net)


def test_the_trainers_checkpoint_says_that_its_net_is_at_once() -> None:
    net = PytorchFCN("FCN8sAtOnce", 5, **NARROW)
    document = {
        "epoch": 3,
        "arch": "FCN8sAtOnce",
        "optim_state_dict": torch.optim.SGD(net.parameters(), lr=1e-10).state_dict(),
        "model_state_dict": net.state_dict(),
        "best_mean_iu": np.float64(0.5),
    }
    buffer = io.BytesIO()
    torch.save(document, buffer)
    file = read_file(buffer.getvalue(), "model_best.pth.tar")
    assert_same_scores(convert(file).network, net)
    with pytest.raises(WeightsError, match=r"given as \(0\.5, 1\.0\), but the file has \(0\.01"):
        convert(file, skip_scales=(0.5, 1.0))


def test_at_once_weights_alone_need_to_be_told_their_scales() -> None:
    net = PytorchFCN("FCN8sAtOnce", 5, **NARROW)
    file = WeightsFile(net.state_dict())
    assert_same_scores(convert(file, skip_scales=AT_ONCE_SCALES).network, net)
    with pytest.raises(SpecError, match="skip_scales"):
        convert(WeightsFile(PytorchFCN("FCN32s", 5, **NARROW).state_dict()), skip_scales=(0.5, 1))


@pytest.mark.parametrize("legacy", [False, True])
def test_the_references_at_once_net_brings_its_scales_and_kernels(legacy: bool) -> None:
    net = with_bilinear(PytorchFCN("FCN8sAtOnce", 5, **NARROW), tuple(STAGES["FCN8s"]))
    arrays = {name: value.numpy() for name, value in net.state_dict().items()}
    arrays["scale_pool4.weight"] = np.full(32, 0.01, np.float32)
    arrays["scale_pool3.weight"] = np.full(16, 0.0001, np.float32)
    file = read_file(caffemodel(arrays, legacy=legacy), "voc-fcn8s-atonce.caffemodel")
    found = convert(file)
    assert found.network.spec.skip_scales == AT_ONCE_SCALES
    assert_same_scores(found.network, net)
    arrays["scale_pool3.weight"][3] = 1
    with pytest.raises(WeightsError, match=r"unexpected: scale_pool3\.weight \(16,\)"):
        convert(read_file(caffemodel(arrays), "a.caffemodel"))


SPECS: dict[str, dict[str, Any]] = {
    "siftflow": {"more_tasks": (Task("geo", 3),), "upsampling": "learned"},
    "color-d": {"streams": (Stream("", 4),)},
    "color-hha": {"streams": (Stream("color", 3), Stream("hha", 3)), "head": "fcn32s"},
    "both": {
        "streams": (Stream("color", 3), Stream("hha", 3)),
        "more_tasks": (Task("geo", 3),),
    },
    "caffenet": {"backbone": "caffenet", "head": "fcn32s"},
    "alexnet": {"backbone": "alexnet"},
    "googlenet": {"backbone": "googlenet", "fc_width": 4096},
    "googlenet_bn": {"backbone": "googlenet_bn", "head": "fcn16s", "fc_width": 4096},
}


@pytest.mark.parametrize("name", SPECS)
def test_what_a_net_is_can_be_read_off_its_names_and_shapes(name: str) -> None:
    spec = NetworkSpec(**({"num_classes": 5, "width": 1 / 8, "fc_width": 24} | SPECS[name]))
    network = randomized(build(spec))
    found = convert(WeightsFile(network.state_dict()))
    assert found.network.spec == spec
    assert found.origin == ("torchvision" if name in {"alexnet", "googlenet_bn"} else "caffe")
    for key, value in found.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[key]), key


def test_the_references_name_for_four_channels_is_known() -> None:
    spec = NetworkSpec(num_classes=5, width=1 / 16, fc_width=8, **SPECS["color-d"])
    ours = randomized(build(spec)).state_dict()
    theirs = {key.replace("conv1_1.", "conv1_1_bgrd."): value for key, value in ours.items()}
    assert "conv1_1_bgrd.weight" in theirs
    found = convert(WeightsFile(theirs)).network
    assert found.spec == spec
    assert torch.equal(found.state_dict()["conv1_1.weight"], ours["conv1_1.weight"])


CLASSIFIERS: tuple[tuple[BackboneName, str, str], ...] = (
    ("vgg16", "torchvision", "classifier.6"),
    ("vgg16", "caffe", "fc8"),
    ("caffenet", "caffe", "fc8"),
    ("alexnet", "torchvision", "classifier.6"),
    ("googlenet", "caffe", "loss3/classifier"),
)


@pytest.mark.parametrize(("backbone", "origin", "last"), CLASSIFIERS)
@pytest.mark.parametrize("head", ["fcn32s", "fcn8s"])
def test_a_classifier_becomes_the_net_that_is_asked_for_with_zero_scores(
    backbone: BackboneName, origin: str, last: str, head: Head
) -> None:
    size: dict[str, Any] = {} if backbone == "googlenet" else {"fc_width": 24}
    spec = NetworkSpec(num_classes=7, backbone=backbone, head=head, width=1 / 8, **size)
    network = randomized(build(spec))
    names = network.backbone.imagenet_names if origin == "torchvision" else {}
    theirs = {ours: name for name, ours in names.items()}
    tensors = {f"{last}.weight": torch.ones(1000, 24), f"{last}.bias": torch.ones(1000)}
    for name, value in network.state_dict().items():
        layer, _, kind = name.rpartition(".")
        if not layer.startswith("score"):
            dense = layer in network.backbone.fully_connected and kind == "weight"
            tensors[f"{theirs.get(layer, layer)}.{kind}"] = value.flatten(1) if dense else value
    found = convert(WeightsFile(tensors), head=head, num_classes=7)
    assert found.network.spec == spec
    assert found.origin == origin
    scores = [name for name in network.state_dict() if name.startswith("score")]
    assert {f"{layer}.weight" for layer in found.fresh} == {n for n in scores if "weight" in n}
    for name, value in found.network.state_dict().items():
        assert torch.equal(value, network.state_dict()[name]) or name in scores
        assert value.any() or name in scores
    with pytest.raises(WeightsError, match="head is None, the number of classes 7"):
        convert(WeightsFile(tensors), num_classes=7)


def test_what_is_given_must_agree_with_the_file() -> None:
    file = WeightsFile(PytorchFCN("FCN16s", 5, **NARROW).state_dict())
    convert(file, head="fcn16s", num_classes=5, fc_width=16)
    for wrong in ({"head": "fcn8s"}, {"num_classes": 21}, {"fc_width": 4096}):
        field, value = next(iter(wrong.items()))
        with pytest.raises(WeightsError, match=f"{field} was given as {value}, but the file has"):
            convert(file, **wrong)


def test_layers_of_other_widths_and_names_are_all_listed() -> None:
    state = PytorchFCN("FCN16s", 5, **NARROW).state_dict()
    del state["conv3_2.bias"], state["upscore16.weight"]
    state["conv4_1.weight"] = state["conv4_1.weight"][:8]
    state["score_pool4.weight"] = torch.full((5, 32, 1, 1), torch.nan)
    state["extra.weight"] = torch.ones(2)
    with pytest.raises(WeightsError) as caught:
        convert(WeightsFile(state))
    for text in (
        "the weights do not fit FCN-16s narrow (VGG16 layout, width 0.0625, fc 16)",
        "wanted and missing: conv3_2.bias (16,), upscore16.weight (5, 5, 32, 32);",
        "given and unexpected: extra.weight (2,);",
        "of another shape: conv4_1.weight (8, 16, 3, 3) given, (32, 16, 3, 3) wanted;",
        "not finite numbers: score_pool4.weight",
    ):
        assert text in str(caught.value)


def test_a_bias_of_no_axis_is_of_another_shape() -> None:
    state = PytorchFCN("FCN16s", 5, **NARROW).state_dict()
    state["fc6.bias"] = torch.tensor(1.0)
    with pytest.raises(WeightsError, match=r"another shape: .*fc6\.bias \(\) given, \(1,\) wanted"):
        convert(WeightsFile(state))


def test_what_is_no_known_net_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"none of VGG16, .* \(layer1\.0\.conv1\.weight, \.\.\."):
        identify(WeightsFile({"layer1.0.conv1.weight": torch.ones(4, 3, 3, 3)}))
    state = build(NetworkSpec(num_classes=5, backbone="caffenet", width=1 / 8)).state_dict()
    assert identify(WeightsFile(state, "CaffeNet")).spec.backbone == "caffenet"
    with pytest.raises(WeightsError, match="the net is AlexNet, which normalizes before it pools"):
        identify(WeightsFile(state, "AlexNet"))
