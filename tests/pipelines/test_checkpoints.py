"""Start weights and checkpoints at any URI."""

from __future__ import annotations

import io

import numpy as np
import pytest
import safetensors.torch
import torch

from fcn_model.errors import WeightsError
from pipelines import checkpoints, storage
from tests.support.networks import random_network
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
    else:
        return safetensors.torch.save(tensors)
    return file.getvalue()


@pytest.mark.s3
@pytest.mark.parametrize("suffix", [".pth", ".npz", ".safetensors"])
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


def test_a_file_that_is_no_state_dict_is_named(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(WeightsError, match=r"x\.safetensors"):
        checkpoints.start_from(random_network(), str(tmp_path / "x.safetensors"))
