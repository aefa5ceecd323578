"""Start weights and checkpoints at any URI."""

from __future__ import annotations

import io

import numpy as np
import pytest
import safetensors.torch
import torch

from fcn_model import ModelConfig, build, normalize, weights
from fcn_model.errors import WeightsError
from fcn_model.spec import AT_ONCE_SCALES
from pipelines import checkpoints, storage
from pipelines.datasets import voc
from tests.support.caffemodels import caffemodel
from tests.support.networks import narrow_spec, random_network
from tests.support.tiny import save_checkpoint


@pytest.fixture(params=["folder", "s3"])
def root(request, tmp_path):
    if request.param == "s3":
        return request.getfixturevalue("s3").uri()
    return storage.parse_uri(str(tmp_path))


def _encoded(tensors, suffix):
    file = io.BytesIO()
    if suffix == ".pth":
        torch.save(tensors, file)
    elif suffix == ".npz":
        np.savez(file, **{name: value.numpy() for name, value in tensors.items()})
    elif suffix == ".caffemodel":
        return caffemodel({name: value.numpy() for name, value in tensors.items()})
    else:
        return safetensors.torch.save(tensors)
    return file.getvalue()


@pytest.mark.s3
@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors", ".caffemodel"])
def test_torchvisions_names_fill_trunk_and_fully_connected_layers(root, suffix):
    giver, taker = random_network(seed=1), random_network(seed=2)
    ours = dict(giver.named_parameters())
    tensors = {
        f"{theirs}.{kind}": ours[f"{name}.{kind}"].detach().clone()
        for theirs, name in giver.backbone.imagenet_names.items()
        for kind in ("weight", "bias")
    }
    uri = storage.join(root, f"vgg{suffix}")
    storage.create(uri, _encoded(tensors, suffix))
    filled = checkpoints.start_from(taker, uri)
    assert len(filled) == 2 * (13 + 2)
    assert all(torch.equal(dict(taker.named_parameters())[name], ours[name]) for name in filled)


def test_a_finer_head_starts_from_a_coarser_ones_directory(tmp_path):
    save_checkpoint(tmp_path, head="fcn32s")
    taker = random_network(seed=5)
    before = {name: value.clone() for name, value in taker.state_dict().items()}
    given = checkpoints.load(str(tmp_path))[0].state_dict()
    checkpoints.start_from(taker, str(tmp_path))
    for name, value in taker.state_dict().items():
        assert torch.equal(value, given.get(name, before[name])), name


def test_each_stream_starts_from_a_file_or_directory_of_its_own(tmp_path):
    save_checkpoint(tmp_path / "color", head="fcn32s", seed=1)
    hha = random_network("fcn32s", seed=2).state_dict()
    (tmp_path / "hha.npz").write_bytes(_encoded(hha, ".npz"))
    network = build(narrow_spec("fcn32s", streams=(("color", 3), ("hha", 3))))
    given = {"color": str(tmp_path / "color"), "hha": str(tmp_path / "hha.npz")}
    assert set(checkpoints.start_from(network, given)) == set(network.state_dict())
    color = checkpoints.load(given["color"])[0].state_dict()
    for name, value in color.items():
        layer, kind = name.split(".")
        assert torch.equal(network.state_dict()[f"{layer}color.{kind}"], value)
        assert torch.equal(network.state_dict()[f"{layer}hha.{kind}"], hha[name])


def _at_once(directory, kind):
    """An at-once net and what it was written to."""
    network = random_network(num_classes=21, skip_scales=AT_ONCE_SCALES)
    state = network.state_dict()
    if kind == "directory":
        config = ModelConfig(spec=network.spec, classes=voc.CLASSES, normalization=normalize.CAFFE)
        checkpoints.save(str(directory / "net"), network, config)
        return network, str(directory / "net")
    file = directory / ("net.pth" if kind == "pytorch-fcn" else "net.caffemodel")
    if kind == "pytorch-fcn":
        torch.save({"arch": "FCN8sAtOnce", "model_state_dict": state}, file)
    else:
        scales = {
            f"scale_{skip}.weight": torch.full((state[f"score_{skip}.weight"].shape[1],), scale)
            for skip, scale in zip(("pool4", "pool3"), AT_ONCE_SCALES, strict=True)
        }
        file.write_bytes(_encoded(state | scales, ".caffemodel"))
    return network, str(file)


@pytest.mark.parametrize("kind", ["directory", "pytorch-fcn", "caffe"])
@torch.no_grad()
def test_a_plain_net_starts_with_the_scores_of_its_at_once_source(tmp_path, kind):
    giver, init = _at_once(tmp_path, kind)
    plain = random_network(num_classes=21, seed=1)
    assert set(checkpoints.start_from(plain, init)) == set(giver.state_dict())
    images = torch.randn(1, 3, 33, 47) * 60
    torch.testing.assert_close(plain(images), giver(images), rtol=1e-5, atol=1e-4)
    again = random_network(num_classes=21, seed=2, skip_scales=AT_ONCE_SCALES)
    checkpoints.start_from(again, init)
    assert torch.equal(again(images), giver(images))


def test_a_file_may_be_called_like_a_torchvision_enum(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    giver = random_network(seed=1).state_dict()
    (tmp_path / "VGG16_Weights.pth").write_bytes(_encoded(giver, ".pth"))
    assert set(checkpoints.start_from(random_network(), "VGG16_Weights.pth")) == set(giver)


def test_torchvisions_enums_are_known_by_their_names(monkeypatch):
    giver = random_network(seed=1).state_dict()
    monkeypatch.setattr(weights, "torchvision_weights", {"AlexNet_Weights.DEFAULT": giver}.get)
    assert set(checkpoints.start_from(random_network(), "AlexNet_Weights.DEFAULT")) == set(giver)
    assert checkpoints.is_weights("GoogLeNet_Weights.IMAGENET1K_V1")
    assert checkpoints.is_weights("s3://bucket/model_best.pth.tar")
    assert not checkpoints.is_weights("runs/AlexNet_Weights.old/best")


def test_weights_that_do_not_fit_are_named(tmp_path):
    state = random_network("fcn32s").state_dict()
    del state["conv1_1.bias"]
    (tmp_path / "vgg.npz").write_bytes(_encoded(state, ".npz"))
    with pytest.raises(WeightsError, match=r"vgg\.npz: the weights do not fit .*conv1_1\.bias"):
        checkpoints.start_from(random_network(), str(tmp_path / "vgg.npz"))


def test_a_file_that_is_no_state_dict_is_named(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match=r"x\.safetensors"):
        checkpoints.start_from(random_network(), str(tmp_path / "x.safetensors"))
