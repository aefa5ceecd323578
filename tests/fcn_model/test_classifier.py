from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import Tensor, nn
from torchvision.models import alexnet, googlenet, vgg16

from fcn_model.classifier import Classifier, load_classifier
from fcn_model.errors import WeightsError
from fcn_model.extents import Extents
from fcn_model.normalize import CAFFE
from fcn_model.spec import BackboneName, NetworkSpec
from fcn_model.weights import WeightsFile, read_file
from tests.support.caffemodels import caffemodel
from tests.support.randomized import randomized

CLASSES = 12


def narrowed(make: Any, divisor: int) -> Any:
    """torchvision's own module with a fraction of the channels, random, evaluating."""
    with torch.device("meta"):
        net = make(weights=None, num_classes=CLASSES * divisor)
    for name, layer in list(net.named_modules()):
        parent = net.get_submodule(name.rpartition(".")[0])
        if isinstance(layer, nn.Conv2d):
            channels = 3 if layer.in_channels == 3 else layer.in_channels // divisor
            wide = layer.out_channels // divisor
            setting: tuple[Any, ...] = (layer.kernel_size, layer.stride, layer.padding)
            new: nn.Module = nn.Conv2d(channels, wide, *setting)
        elif isinstance(layer, nn.Linear):
            new = nn.Linear(layer.in_features // divisor, layer.out_features // divisor)
        else:
            continue
        setattr(parent, name.rpartition(".")[2], new)
    return randomized(net)


def assert_close(found: Tensor, wanted: Tensor) -> None:
    assert wanted.std() > 0.01
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("make", [vgg16, alexnet])
@torch.no_grad()
def test_it_is_torchvisions_classifier_on_one_image_and_a_sliding_window_on_a_larger(
    make: Any,
) -> None:
    theirs = narrowed(make, 16)
    ours = load_classifier(WeightsFile(theirs.state_dict()))
    image = torch.randn(2, 3, 224, 224)
    found = ours(image)
    assert found.shape == (2, CLASSES, 1, 1)
    assert_close(found[:, :, 0, 0], theirs(image))
    # 224 and steps of the stride, so that their pools, which round down, drop nothing.
    large = torch.randn(1, 3, 224 + 64, 224 + 96)
    features = theirs.features(large)
    side = 7 if make is vgg16 else 6
    found = ours(large)
    assert found.shape[2:] == (features.shape[2] - side + 1, features.shape[3] - side + 1) == (3, 4)
    for row in range(3):
        for column in range(4):
            window = features[:, :, row : row + side, column : column + side]
            assert_close(found[:, :, row, column], theirs.classifier(window.flatten(1)))


@torch.no_grad()
def test_it_is_torchvisions_googlenet_with_its_batch_normalizations_folded() -> None:
    torch.manual_seed(0)
    theirs = googlenet(weights=None, num_classes=CLASSES, init_weights=False).eval()
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.weight.uniform_(0.5, 1.5)
            layer.bias.normal_(0, 0.2)
            layer.running_mean.normal_(0, 0.2)  # type: ignore[union-attr]
            layer.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    ours = load_classifier(WeightsFile(theirs.state_dict()))
    assert ours.spec.backbone == "googlenet_bn"
    image = torch.randn(1, 3, 224, 224)
    assert_close(ours(image)[:, :, 0, 0], theirs(image))
    large = torch.randn(1, 3, 256, 288)
    names = dict(theirs.named_children())
    features = large
    for name, child in names.items():
        if name in {"avgpool", "dropout", "fc"}:
            break
        if not name.startswith("aux"):
            features = child(features)
    found = ours(large)
    assert found.shape[2:] == (features.shape[2] - 6, features.shape[3] - 6) == (2, 3)
    for row in range(2):
        for column in range(3):
            window = features[:, :, row : row + 7, column : column + 7]
            assert_close(found[:, :, row, column], theirs.fc(window.mean((2, 3))))


def caffenet(image: Tensor, arrays: dict[str, Tensor]) -> Tensor:
    """CaffeNet as models/bvlc_reference_caffenet of BVLC/caffe has it, dense to the end."""
    h, settings = image, ((4, 0, 1), (1, 2, 2), (1, 1, 1), (1, 1, 2), (1, 1, 2))
    for index, (stride, padding, groups) in enumerate(settings, start=1):
        weight, bias = (arrays[f"conv{index}.{kind}"] for kind in ("weight", "bias"))
        h = F.relu(F.conv2d(h, weight, bias, stride, padding, groups=groups))
        if index in {1, 2, 5}:
            h = F.max_pool2d(h, 3, 2, ceil_mode=True)
        if index in {1, 2}:
            squares = F.pad(h.square(), (0, 0, 0, 0, 2, 2))
            near = torch.stack([squares[:, c : c + h.shape[1]] for c in range(5)]).sum(0)
            h = h / (1 + 1e-4 / 5 * near) ** 0.75
    h = h.flatten(1)
    for name in ("fc6", "fc7", "fc8"):
        h = h @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"]
        h = h if name == "fc8" else F.relu(h)
    return h


@pytest.mark.parametrize("legacy", [False, True])
@torch.no_grad()
def test_it_is_caffenet_from_its_file_of_either_form(legacy: bool) -> None:
    spec = NetworkSpec(num_classes=1, backbone="caffenet", width=1 / 8, fc_width=32)
    tensors = randomized(Classifier(spec, CLASSES)).state_dict()
    arrays = {
        name: value.flatten(1) if name.startswith("fc") and value.ndim == 4 else value
        for name, value in tensors.items()
    }
    data = caffemodel({name: value.numpy() for name, value in arrays.items()}, legacy=legacy)
    ours = load_classifier(read_file(data, "bvlc_reference_caffenet.caffemodel"))
    assert (ours.spec.backbone, ours.spec.width, ours.spec.fc_width) == ("caffenet", 1 / 8, 32)
    image = torch.randn(1, 3, 227, 227) * 60
    found = ours(image)
    assert found.shape == (1, CLASSES, 1, 1)
    assert_close(found[:, :, 0, 0], caffenet(image, arrays))


@pytest.mark.parametrize("backbone", get_args(BackboneName))
@torch.no_grad()
def test_the_least_image_gives_one_answer_and_a_smaller_one_an_error(
    backbone: BackboneName,
) -> None:
    width: dict[str, Any] = {} if "googlenet" in backbone else {"fc_width": 8}
    spec = NetworkSpec(num_classes=1, backbone=backbone, width=1 / 16, **width)
    net = Classifier(spec, CLASSES).eval()
    least = net.least_size
    assert net(torch.zeros(1, 3, least, least)).shape == (1, CLASSES, 1, 1)
    small = torch.zeros(1, 3, least - 1, least)
    with pytest.raises(ValueError, match=f"{backbone} must have {least} pixels .* {least - 1} x"):
        net(small)
    with pytest.raises(RuntimeError):  # torch's own view of it
        net.trunk.run(dict(net.named_children()), small, Extents(None))


def test_a_file_without_its_last_layer_is_no_classifier() -> None:
    spec = NetworkSpec(num_classes=1, width=1 / 16, fc_width=8)
    tensors = Classifier(spec, CLASSES).state_dict()
    without = {name: value for name, value in tensors.items() if not name.startswith("fc8")}
    with pytest.raises(WeightsError, match=r"no last layer .* fc8 or classifier\.6"):
        load_classifier(WeightsFile(without))
    del tensors["fc6.bias"]
    with pytest.raises(WeightsError, match="do not fit the classifier of vgg16"):
        load_classifier(WeightsFile(tensors))


PHOTOS = {
    "2007_003267": 96,  # toucan
    "2007_003604": 178,  # Weimaraner
    "2007_000256": 404,  # airliner
    "2007_003137": 779,  # school bus
    "2008_002697": 339,  # sorrel
    "2007_002565": 820,  # steam locomotive
}
"""Number, in the order of ILSVRC's 1000 classes, of what fills each photograph."""


@pytest.fixture(scope="module")
def bvlc(shared_data: Path) -> Classifier:
    file = shared_data / "weights" / "googlenet_bvlc_caffe.fp16.npz"
    return load_classifier(read_file(file.read_bytes(), file.name))


def photo(shared_data: Path, name: str) -> Image.Image:
    """A photograph with its shorter side at 256, as ImageNet's are before they are cropped."""
    image = Image.open(shared_data / "voc2012_subset" / "JPEGImages" / f"{name}.jpg")
    scale = 256 / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    return image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.shared_data
@pytest.mark.parametrize("name", PHOTOS)
@torch.no_grad()
def test_googlenet_names_what_a_photograph_shows(
    shared_data: Path, bvlc: Classifier, name: str
) -> None:
    whole = np.array(photo(shared_data, name))
    top, left = ((side - 224) // 2 for side in whole.shape[:2])
    middle = CAFFE(whole[top : top + 224, left : left + 224])[None]
    shares = bvlc(middle).softmax(1)[0, :, 0, 0]
    assert shares.argmax() == PHOTOS[name]
    assert shares.max() > 0.8
    # The whole photograph at once: a grid of answers, whose mean says the same.
    grid = bvlc(CAFFE(whole)[None]).softmax(1)
    assert grid.shape[2] * grid.shape[3] > 1
    assert grid.mean((2, 3))[0].argmax() == PHOTOS[name]


@pytest.mark.shared_data
@torch.no_grad()
def test_each_place_of_googlenets_grid_is_the_dense_layer_on_a_mean_of_49_features(
    shared_data: Path, bvlc: Classifier
) -> None:
    image = CAFFE(np.array(photo(shared_data, "2007_003267")))[None]
    steps = [step for step in bvlc.trunk.steps if step.name not in {"pool5", "drop5"}]
    layers, features = dict(bvlc.named_children()), image
    for step in steps:
        features = step.run(layers, features, Extents(None))
    dense = bvlc.get_submodule("loss3/classifier")
    assert isinstance(dense, nn.Conv2d)
    found = bvlc(image)
    for row in range(found.shape[2]):
        for column in range(found.shape[3]):
            mean = features[:, :, row : row + 7, column : column + 7].mean((2, 3))
            wanted = F.linear(mean, dense.weight[:, :, 0, 0], dense.bias)
            assert_close(found[:, :, row, column], wanted)
