from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import safetensors.torch
import torch
from torch import Tensor

from fcn_model import FCN, ClassList, ModelConfig, checkpoint, model_config
from fcn_model.errors import CheckpointError, SpecError
from fcn_model.normalize import CAFFE, TORCHVISION
from fcn_model.spec import BackboneName
from tests.support.networks import random_network

CLASSES = ClassList(names=("Sky", "Building", "Road", "Tree", "Car"), void_id=11)


def config_of(network: FCN) -> ModelConfig:
    return ModelConfig(spec=network.spec, classes=CLASSES, normalization=CAFFE)


def test_what_was_saved_comes_back_and_computes_the_same(tmp_path: Path) -> None:
    network = random_network().to(memory_format=torch.channels_last)
    written = checkpoint.save(tmp_path / "new" / "checkpoint", network, config_of(network))
    assert sorted(path.name for path in (tmp_path / "new" / "checkpoint").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    loaded, config = checkpoint.load(tmp_path / "new" / "checkpoint")
    assert config == written == replace(config_of(network), digest=config.digest)
    assert len(config.digest) == 64
    assert not loaded.training
    image = torch.randn(1, 3, 20, 30)
    with torch.no_grad():
        torch.testing.assert_close(loaded(image), network(image))


@pytest.mark.parametrize("backbone", get_args(BackboneName))
def test_loading_does_not_load_torchs_compiler_which_takes_seconds(
    tmp_path: Path, backbone: BackboneName
) -> None:
    network = random_network(backbone=backbone)
    checkpoint.save(tmp_path, network, config_of(network))
    code = """
import pathlib, sys
from fcn_model import checkpoint
checkpoint.load(pathlib.Path(sys.argv[1]))
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)


def test_a_loaded_network_can_be_trained(tmp_path: Path) -> None:
    network = random_network()
    checkpoint.save(tmp_path, network, config_of(network))
    loaded, _ = checkpoint.load(tmp_path)
    optimizer = torch.optim.SGD(loaded.parameters(), lr=0.1)
    loaded(torch.randn(1, 3, 8, 8)).square().sum().backward()
    optimizer.step()
    again, _ = checkpoint.load(tmp_path)
    changed = [
        name
        for name, value in loaded.state_dict().items()
        if not torch.equal(value, again.state_dict()[name])
    ]
    assert "conv1_1.weight" in changed
    assert "score_pool3.bias" in changed


def test_the_config_says_all_that_another_program_needs(tmp_path: Path) -> None:
    network = random_network("fcn16s")
    checkpoint.save(tmp_path, network, config_of(network))
    document = json.loads((tmp_path / "config.json").read_text())
    assert document["name"] == "FCN-16s narrow (VGG16 layout, width 0.0625, fc 16)"
    assert document["architecture"]["head"] == "fcn16s"
    assert document["classes"]["names"][1] == "Building"
    assert document["classes"]["palette"][1] == [128, 0, 0]
    assert document["classes"]["void_id"] == 11
    assert document["normalization"]["channel_order"] == "bgr"
    assert document["stride"] == 32
    weights = (tmp_path / "model.safetensors").read_bytes()
    assert document["files"]["model.safetensors"]["sha256"] == hashlib.sha256(weights).hexdigest()


def test_the_digest_follows_everything_that_determines_a_mask() -> None:
    network = random_network()
    config = config_of(network)

    def digest(network: FCN, config: ModelConfig) -> str:
        return checkpoint.from_files(checkpoint.to_files(network, config))[1].digest

    first = digest(network, config)
    assert digest(random_network(), config) == first
    channels_last = random_network().to(memory_format=torch.channels_last)
    assert digest(channels_last, replace(config, digest="old")) == first
    changed = random_network()
    with torch.no_grad():
        changed.get_parameter("fc7.bias")[3] += 1e-3
    others = {
        digest(changed, config),
        digest(network, replace(config, normalization=TORCHVISION)),
        digest(network, replace(config, classes=replace(CLASSES, void_id=255))),
    }
    assert len(others | {first}) == 4


def forged(change: Callable[[dict[str, Tensor]], Any]) -> dict[str, bytes]:
    """A checkpoint whose tensors were changed and whose file hash was set right again."""
    network = random_network()
    files = checkpoint.to_files(network, config_of(network))
    tensors = safetensors.torch.load(files["model.safetensors"])
    change(tensors)
    weights = safetensors.torch.save(tensors)
    document = json.loads(files["config.json"])
    document["files"]["model.safetensors"]["sha256"] = hashlib.sha256(weights).hexdigest()
    return {"model.safetensors": weights, "config.json": json.dumps(document).encode()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tensors: tensors.pop("fc6.bias"),
            "does not fit FCN-8s narrow .*fc6.bias is missing",
        ),
        (lambda tensors: tensors.update(fc9=torch.zeros(1)), "fc9 is unexpected"),
        (
            lambda tensors: tensors.update({"fc7.bias": torch.zeros(3)}),
            r"fc7.bias is \(3,\) instead of \(16,\)",
        ),
        (
            lambda tensors: tensors.update({"fc7.bias": torch.zeros(16).half()}),
            "fc7.bias is torch.float16 instead of torch.float32",
        ),
        (lambda tensors: tensors["fc7.bias"].add_(1), "config.json was changed .* digest is"),
    ],
)
def test_tensors_that_are_not_the_networks_are_named(
    change: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        checkpoint.from_files(forged(change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, 'does not say "format": "fcn-checkpoint"'),
        ({"format_version": 2}, "is of format version 2, this program reads version 1"),
        ({"architecture": {"num_classes": 0}}, "config.json: num_classes must be 1 to 256, got 0"),
        ({"architecture": None}, "config.json: a network is a JSON object"),
        ({"files": {}}, "lacks a field or has it mistyped: 'model.safetensors'"),
        ({"classes": {"names": ["Sky"]}}, "scores 5 classes, but the class list has 1"),
        ({"digest": "0" * 64}, "was changed after it was written: its digest is 0000"),
    ],
)
def test_a_config_that_says_something_else_is_refused(change: dict[str, Any], message: str) -> None:
    network = random_network()
    files = checkpoint.to_files(network, config_of(network))
    document = json.loads(files["config.json"]) | change
    with pytest.raises(CheckpointError, match=message):
        checkpoint.from_files({**files, "config.json": json.dumps(document).encode()})


def test_the_files_alone_say_what_they_are_and_whether_they_were_changed() -> None:
    network = random_network()
    files = checkpoint.to_files(network, config_of(network))
    assert model_config.verified(files) == checkpoint.from_files(files)[1]
    document = json.loads(files["config.json"])
    document["classes"]["names"][0] = "Heaven"
    for changed, message in (
        ({"config.json": json.dumps(document).encode()}, "was changed after it was written"),
        ({"model.safetensors": files["model.safetensors"] + b"0"}, "is damaged"),
    ):
        with pytest.raises(CheckpointError, match=message) as ours:
            model_config.verified(files | changed)
        with pytest.raises(CheckpointError) as whole:
            checkpoint.from_files(files | changed)
        assert str(ours.value) == str(whole.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_config_that_is_no_json_object_is_refused(content: bytes) -> None:
    network = random_network()
    files = checkpoint.to_files(network, config_of(network))
    with pytest.raises(CheckpointError, match=r"config.json (is not JSON|does not say)"):
        checkpoint.from_files({**files, "config.json": content})


def test_a_damaged_directory_gives_one_line_that_names_it(tmp_path: Path) -> None:
    network = random_network()
    checkpoint.save(tmp_path, network, config_of(network))
    weights = tmp_path / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    damages: dict[str, Callable[[], object]] = {
        "model.safetensors is damaged or of another checkpoint: its sha256 is": lambda: None,
        "model.safetensors is missing": weights.unlink,
        "config.json is missing": (tmp_path / "config.json").unlink,
    }
    for message, damage in damages.items():
        damage()
        with pytest.raises(CheckpointError, match=message) as caught:
            checkpoint.load(tmp_path)
        assert str(caught.value).startswith(f"checkpoint {tmp_path}: ")
        assert "\n" not in str(caught.value)


def test_weights_that_are_no_safetensors_are_refused_even_with_a_right_hash() -> None:
    files = forged(lambda tensors: None)
    document = json.loads(files["config.json"])
    document["files"]["model.safetensors"]["sha256"] = hashlib.sha256(b"\x80\x04.").hexdigest()
    broken = {"model.safetensors": b"\x80\x04.", "config.json": json.dumps(document).encode()}
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        checkpoint.from_files(broken)


def test_a_config_of_another_network_is_not_saved() -> None:
    with pytest.raises(SpecError, match="but the config says"):
        checkpoint.to_files(random_network("fcn8s"), config_of(random_network("fcn16s")))
    with pytest.raises(SpecError, match="scores 7 classes, but the class list has 5"):
        config_of(random_network(num_classes=7))
