"""The command that turns published weights into a checkpoint directory."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fcn_model import NetworkSpec, build, normalize
from fcn_model.layers import dense_bilinear
from jobs import runtime
from pipelines import checkpoints
from pipelines.datasets import camvid, nyud, siftflow, voc
from tests.support.caffemodels import caffemodel
from tests.support.networks import narrow_spec
from tests.support.pytorch_fcn import PytorchFCN
from tests.support.randomized import randomized


@pytest.fixture
def convert(monkeypatch, capsys, tmp_path):
    """Run the job on a file in ``tmp_path``; returns its exit code, output and error lines."""

    def run(weights: str, *options: Any) -> tuple[Any, str, str]:
        arguments = ["--weights", str(tmp_path / weights), "--output", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", ["jobs/convert.py", *arguments, *map(str, options)])
        monkeypatch.setattr("signal.signal", lambda *_: None)
        with pytest.raises(SystemExit) as ended:
            importlib.import_module("jobs.convert").main()
        output = capsys.readouterr()
        return ended.value.code, output.out, output.err

    return run


def write(path: Path, tensors: dict[str, torch.Tensor], **more: Any) -> None:
    torch.save({"model_state_dict": tensors, **more} if more else tensors, path)


def of_classifier(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A classifier's layers by Caffe's names."""
    state = network.state_dict()
    return {name: value for name, value in state.items() if not name.startswith("score")}


@torch.no_grad()
def test_pytorch_fcns_file_becomes_a_checkpoint_that_gives_the_same_masks(convert, tmp_path):
    theirs = PytorchFCN("FCN8s", 21, wide=4, fc=16)
    write(tmp_path / "fcn8s.pth", theirs.state_dict())
    code, out, err = convert("fcn8s.pth")
    assert (code, err) == (0, "")
    assert "FCN-8s narrow (VGG16 layout, width 0.0625, fc 16) [learned upsampling]" in out
    assert "fresh" not in out
    ours, config = checkpoints.load(str(tmp_path / "out"))
    assert config.classes == voc.CLASSES
    assert config.normalization == normalize.CAFFE
    image = torch.randn(1, 3, 33, 47) * 60
    wanted = theirs(image)
    found = ours(image)
    assert (found - wanted).abs().max() <= 1e-4 * (wanted.max() - wanted.min())
    assert torch.equal(found.argmax(1), wanted.argmax(1))
    # The same again changes nothing; another file does not overwrite it.
    written = (tmp_path / "out" / "config.json").read_bytes()
    assert convert("fcn8s.pth")[0] == 0
    write(tmp_path / "b.pth", PytorchFCN("FCN8s", 21, wide=4, fc=16, seed=1).state_dict())
    code, _, err = convert("b.pth")
    assert (code, err.count("\n")) == (runtime.EXIT_BAD_INPUT, 1)
    assert "holds another checkpoint" in err
    assert (tmp_path / "out" / "config.json").read_bytes() == written


def test_at_once_scales_are_given_where_the_file_cannot_say_them(convert, tmp_path):
    write(tmp_path / "a.pth", PytorchFCN("FCN8sAtOnce", 5, wide=4, fc=16).state_dict())
    code, out, _ = convert("a.pth", "--skip-scales", 0.01, 0.0001)
    assert code == 0
    assert "5 classes: class 0, class 1, class 2, class 3, class 4" in out
    assert checkpoints.load(str(tmp_path / "out"))[1].spec.skip_scales == (0.01, 0.0001)


def test_caffes_two_streams_bring_their_planes_and_means(convert, tmp_path):
    spec = narrow_spec("fcn32s", num_classes=40, streams=(("color", 3), ("hha", 3)))
    state = randomized(build(spec)).state_dict()
    arrays = {name: value.numpy() for name, value in state.items()}
    arrays["upscore.weight"] = dense_bilinear(40, 64).numpy()
    (tmp_path / "nyud.caffemodel").write_bytes(caffemodel(arrays))
    assert convert("nyud.caffemodel", "--classes", "nyud")[0] == 0
    network, config = checkpoints.load(str(tmp_path / "out"))
    assert (config.spec, config.classes) == (spec, nyud.CLASSES)
    assert config.normalization == normalize.NYUD_COLOR
    assert config.planes == (("hha", normalize.NYUD_HHA),)
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name])


def test_an_hha_net_needs_the_hha_image_in_the_images_place(convert, tmp_path):
    state = randomized(build(narrow_spec("fcn32s", num_classes=40))).state_dict()
    write(tmp_path / "nyud-fcn32s-hha.pth", state)
    code, out, _ = convert(
        "nyud-fcn32s-hha.pth", "--classes", "nyud", "--normalization", "nyud-hha"
    )
    assert code == 0
    assert "\nhha: rgb, times 1, minus (132.431, 94.076, 118.477)" in out
    config = checkpoints.load(str(tmp_path / "out"))[1]
    assert (config.needs, config.normalization) == (("hha",), normalize.NYUD_HHA)


def test_both_tasks_of_sift_flow_have_their_classes(convert, tmp_path):
    spec = narrow_spec("fcn16s", num_classes=33, more_tasks=(("geo", 3),))
    write(tmp_path / "sift.pth", randomized(build(spec)).state_dict())
    code, out, _ = convert("sift.pth", "--classes", "siftflow")
    assert code == 0
    assert "3 classes: sky, horizontal, vertical" in out
    config = checkpoints.load(str(tmp_path / "out"))[1]
    assert config.more_classes == (siftflow.GEO_CLASSES,)
    assert config.normalization == normalize.SIFT_FLOW


@pytest.mark.parametrize(
    ("options", "normalization"),
    [
        ((), normalize.SIFT_FLOW),
        (("--normalization", "pascalcontext"), normalize.PASCAL_CONTEXT),
    ],
)
def test_sift_flows_tasks_tell_its_mean_unless_another_is_named(
    convert, tmp_path, options, normalization
):
    spec = narrow_spec("fcn32s", num_classes=33, more_tasks=(("geo", 3),))
    write(tmp_path / "sift.pth", randomized(build(spec)).state_dict())
    assert convert("sift.pth", *options)[0] == 0
    assert checkpoints.load(str(tmp_path / "out"))[1].normalization == normalization


@pytest.mark.parametrize(
    ("backbone", "normalization"),
    [
        ("vgg16", normalize.CAFFE),
        ("caffenet", normalize.CAFFE),
        ("alexnet", normalize.TORCHVISION),
        ("googlenet_bn", normalize.TORCHVISION_GOOGLENET),
    ],
)
def test_a_classifier_gets_the_scores_and_the_input_that_belong_to_it(
    convert, tmp_path, backbone, normalization
):
    network = randomized(build(narrow_spec("fcn16s", backbone=backbone)))
    write(tmp_path / "net.pth", of_classifier(network))
    code, out, _ = convert("net.pth", "--head", "fcn16s", "--classes", "camvid")
    assert code == 0
    assert "fresh, for want of weights: score_fr, score_p" in out
    found, config = checkpoints.load(str(tmp_path / "out"))
    assert (config.classes, config.spec.head) == (camvid.CLASSES, "fcn16s")
    assert config.normalization == normalization
    for name, value in found.state_dict().items():
        if name.startswith("score"):
            assert not value.any()
        else:
            assert torch.equal(value, network.state_dict()[name])


def test_what_is_declared_is_taken(convert, tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps({"names": ["x", "y"], "void_id": 9}))
    tensors = of_classifier(randomized(build(NetworkSpec(num_classes=2, width=1 / 16, fc_width=8))))
    trunk = {name: value for name, value in tensors.items() if not name.startswith("fc")}
    write(tmp_path / "trunk.pth", trunk)
    options = ["--head", "fcn8s", "--classes", tmp_path / "classes.json", "--fc-width", 8]
    code, out, _ = convert("trunk.pth", *options, "--normalization", "torchvision")
    assert code == 0
    assert "fresh, for want of weights: fc6, fc7, score_fr" in out
    config = checkpoints.load(str(tmp_path / "out"))[1]
    assert (config.classes.names, config.classes.void_id) == (("x", "y"), 9)
    assert config.spec.fc_width == 8
    assert config.normalization == normalize.TORCHVISION


def test_what_cannot_be_converted_is_one_line_that_names_the_file(convert, tmp_path):
    state = dict(PytorchFCN("FCN32s", 5, wide=4, fc=16).state_dict())
    write(tmp_path / "whole.pth", state)
    del state["conv1_2.bias"]
    write(tmp_path / "part.pth", state | {"more.bias": torch.ones(3)})
    write(tmp_path / "classifier.pth", of_classifier(build(narrow_spec())))
    (tmp_path / "list.json").write_text("[]")
    for name, options, texts in (
        ("part.pth", [], ["part.pth: ", "missing: conv1_2.bias (4,)", "unexpected: more.bias"]),
        ("whole.pth", ["--num-classes", 21], ["num_classes was given as 21, but the file has 5"]),
        ("whole.pth", ["--classes", "voc"], ["num_classes was given as 21"]),
        ("whole.pth", ["--classes", "cityscapes"], ["voc, camvid", "'cityscapes'"]),
        ("whole.pth", ["--classes", tmp_path / "list.json"], ["list.json is no class list"]),
        ("classifier.pth", [], ["of a classifier", "head is None"]),
        ("none.pth", [], ["none.pth"]),
        ("directory", [], ["directory is no weights file", ".caffemodel"]),
    ):
        code, _, err = convert(name, *options)
        assert (code, err.count("\n")) == (runtime.EXIT_BAD_INPUT, 1), err
        for text in texts:
            assert text in err
        assert not (tmp_path / "out").exists()
