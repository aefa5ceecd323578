"""Backbones, tasks and streams: every variation equals something simpler that is known."""

from __future__ import annotations

import math
from functools import partial
from typing import get_args

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fcn_model import FCN, ClassList, ModelConfig, NetworkSpec, Segmenter, build, checkpoint
from fcn_model.layers import dense_bilinear
from fcn_model.losses import summed_cross_entropy
from fcn_model.normalize import CAFFE, NYUD_DEPTH, NYUD_HHA
from fcn_model.spec import BackboneName, Head, Stream, Task
from tests.support.networks import narrow_spec, random_network

HEADS: tuple[Head, ...] = ("fcn32s", "fcn16s", "fcn8s")
COLOR_HHA = (Stream("color", 3), Stream("hha", 3))
SEM_GEO = (Task("geo", 3),)


@torch.no_grad()
def caffenet_scores(state: dict[str, Tensor], image: Tensor) -> Tensor:
    """voc-fcn-alexnet/net.py written out with its own numbers; channels come from the weights."""

    def conv(x: Tensor, name: str, **how: int) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **how)

    def lrn(x: Tensor) -> Tensor:
        total = F.pad(x**2, (0, 0, 0, 0, 2, 2)).unfold(1, 5, 1).sum(-1)
        return x / (1 + 1e-4 / 5 * total) ** 0.75

    def pool(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    x = lrn(pool(F.relu(conv(image, "conv1", stride=4, padding=100))))
    x = lrn(pool(F.relu(conv(x, "conv2", padding=2, groups=2))))
    x = F.relu(conv(x, "conv3", padding=1))
    x = F.relu(conv(x, "conv4", padding=1, groups=2))
    x = pool(F.relu(conv(x, "conv5", padding=1, groups=2)))
    x = conv(F.relu(conv(F.relu(conv(x, "fc6")), "fc7")), "score_fr")
    x = F.conv_transpose2d(x, dense_bilinear(x.shape[1], 63).to(x.dtype), stride=32)
    return x[:, :, 18 : 18 + image.shape[2], 18 : 18 + image.shape[3]]


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (100, 65)])
def test_fcn_alexnet_is_that_of_the_reference(size: tuple[int, int]) -> None:
    network = random_network("fcn32s", backbone="caffenet", dtype=torch.float64)
    image = 100 * torch.randn(1, 3, *size, dtype=torch.float64)  # so that the norms matter
    expected = caffenet_scores(network.state_dict(), image)
    assert expected.std() > 0.1
    torch.testing.assert_close(network(image), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("backbone", get_args(BackboneName))
def test_scores_follow_their_pixels(head: Head, backbone: BackboneName) -> None:
    # A net whose trunk sees one bright dot scores highest around the dot, wherever that is: a
    # misplaced crop would shift the answer.
    network = random_network(head, backbone=backbone, num_classes=2)
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.abs_()
            if name.endswith("bias") or name.startswith(("score_pool", "score_fr")):
                value.zero_()
        network.get_parameter("score_fr.weight")[1] = 1.0
        if "googlenet" not in backbone:  # of fc6, which sees most of this image, only the middle
            fc6 = network.get_parameter("fc6.weight")
            middle = (fc6.shape[-1] - 1) // 2
            fc6[:, :, :middle] = fc6[:, :, -middle:] = 0
            fc6[..., :middle] = fc6[..., -middle:] = 0
        image = torch.zeros(1, 3, 257, 257)
        image[:, :, 120:136, 88:104] = 1.0
        raised = network(image)[0, 1]
    rows, columns = (raised.sum(axis) for axis in (1, 0))
    positions = torch.arange(257.0)
    centre = [float((line * positions).sum() / line.sum()) for line in (rows, columns)]
    assert centre == pytest.approx([127.5, 95.5], abs=8)


@pytest.mark.parametrize("head", HEADS)
def test_several_tasks_score_as_networks_of_one_task_would(head: Head) -> None:
    both = random_network(head, num_classes=7, more_tasks=SEM_GEO, dtype=torch.float64)
    image = torch.randn(2, 3, 21, 40, dtype=torch.float64)
    with torch.no_grad():
        parts = both.spec.split(both(image))
        for task, scores in zip(both.spec.tasks, parts, strict=True):
            single = random_network(head, num_classes=task.num_classes, dtype=torch.float64)
            wanted = {name: name for name in single.state_dict()}
            for name in wanted:
                layer, kind = name.split(".")
                if layer.startswith("score"):
                    wanted[name] = f"{layer}_{task.name}.{kind}"
            state = both.state_dict()
            single.load_state_dict({ours: state[theirs] for ours, theirs in wanted.items()})
            torch.testing.assert_close(scores, single(image))
    assert [tuple(part.shape) for part in parts] == [(2, 7, 21, 40), (2, 3, 21, 40)]


def test_tasks_have_the_layer_names_of_siftflow_fcn8s() -> None:
    with torch.device("meta"):
        network = FCN(NetworkSpec(num_classes=33, more_tasks=SEM_GEO))
    named = {name for name, _ in network.named_children() if "score" in name}
    stems = ("score_fr", "score_pool4", "score_pool3", "upscore2", "upscore_pool4", "upscore8")
    assert named == {f"{stem}_{task}" for stem in stems for task in ("sem", "geo")}


@pytest.mark.parametrize("head", HEADS)
def test_two_streams_score_the_mean_of_two_networks(head: Head) -> None:
    joined = random_network(head, streams=COLOR_HHA, dtype=torch.float64)
    image = torch.randn(1, 6, 30, 23, dtype=torch.float64)
    singles = []
    for stream in COLOR_HHA:
        single = build(narrow_spec(head)).double().eval()
        state = {
            f"{layer.removesuffix(stream.name)}.{kind}": value
            for name, value in joined.state_dict().items()
            for layer, kind in [name.split(".")]
            if layer.endswith(stream.name)
        }
        single.load_state_dict(state)
        singles.append(single)
    with torch.no_grad():
        expected = (singles[0](image[:, :3]) + singles[1](image[:, 3:])) / 2
        torch.testing.assert_close(joined(image), expected)
    assert expected.std() > 0.01


@pytest.mark.parametrize("backbone", get_args(BackboneName))
def test_the_mean_loss_of_every_task_and_backbone_begins_at_ln_k(backbone: BackboneName) -> None:
    spec = narrow_spec("fcn8s", 7, backbone, more_tasks=SEM_GEO, streams=COLOR_HHA)
    scores = build(spec).train()(torch.randn(1, 6, 12, 20))
    for task, part in zip(spec.tasks, spec.split(scores), strict=True):
        labels = torch.randint(0, task.num_classes, (1, 12, 20))
        loss = summed_cross_entropy(part, labels, 255).item() / labels.numel()
        assert loss == pytest.approx(math.log(task.num_classes), 1e-6)


@pytest.mark.parametrize("upsampling", ["intermediate", "learned"])
def test_learned_upsampling_starts_as_the_fixed_one_and_mixes_channels(upsampling: str) -> None:
    fixed = random_network()
    learned = build(narrow_spec(upsampling=upsampling)).eval()
    names = {name for name, _ in learned.named_parameters() if name.startswith("upscore")}
    last = {"upscore8.weight"} if upsampling == "learned" else set()
    assert names == {"upscore2.weight", "upscore_pool4.weight"} | last
    learned.load_state_dict(fixed.state_dict() | {n: learned.get_parameter(n) for n in names})
    image = torch.randn(1, 3, 20, 31)
    with torch.no_grad():
        torch.testing.assert_close(learned(image), fixed(image), rtol=1e-4, atol=1e-4)
        layer = learned.get_submodule("upscore2")
        assert isinstance(layer, nn.ConvTranspose2d)
        layer.weight[0, 1] = 1.0  # from class 0 to class 1
        changed = learned(image) - fixed(image)
    assert changed[:, 1].abs().max() > 1e-3
    assert changed[:, [0, 2, 3, 4]].abs().max() < 1e-3


def test_a_checkpoint_with_planes_and_tasks_comes_back_and_segments(tmp_path) -> None:
    classes = ClassList(names=tuple("abcde"))
    geo = ClassList(names=("sky", "horizontal", "vertical"))
    streams = (Stream("color", 3), Stream("hha", 3), Stream("depth", 1))
    network = random_network("fcn16s", more_tasks=SEM_GEO, streams=streams)
    config = ModelConfig(
        spec=network.spec,
        classes=classes,
        normalization=CAFFE,
        more_classes=(geo,),
        planes=(("hha", NYUD_HHA), ("depth", NYUD_DEPTH)),
    )
    checkpoint.save(tmp_path, network, config)
    loaded, again = checkpoint.load(tmp_path)
    assert (again.spec, again.planes, again.more_classes) == (
        config.spec,
        config.planes,
        config.more_classes,
    )
    segmenter_of = partial(Segmenter, device="cpu")
    image = torch.randint(0, 256, (9, 14, 3), dtype=torch.uint8).numpy()
    hha = image[:, ::-1].copy()
    depth = (image[..., 0].astype("uint16") * 40)[::-1]
    parts = [CAFFE(image), NYUD_HHA(hha), NYUD_DEPTH(depth)]
    with torch.no_grad():
        wanted = network.spec.split(network(torch.cat(parts)[None]))
    for task, scores in zip(("sem", "geo"), wanted, strict=True):
        mask = segmenter_of(loaded, again, task=task)(image, hha=hha, depth=depth)
        assert mask.tolist() == scores[0].argmax(0).tolist()
    thin = segmenter_of(loaded, again)(image[:, :1], hha=hha[:, :1], depth=depth[:, :1])
    assert thin.shape == (9, 1)
    with pytest.raises(ValueError, match=r"plane 'depth' of image 0 must be uint16 \(9, 14\)"):
        segmenter_of(loaded, again)(image, hha=hha, depth=hha)
    with pytest.raises(ValueError, match=r"needs the planes \['hha', 'depth'\].*got \['hha'\]"):
        segmenter_of(loaded, again)(image, hha=hha)


def test_log_depth_is_the_references_with_unknown_depth_as_one() -> None:
    depth = torch.tensor([[0, 1, 2551], [7000, 9999, 65535]], dtype=torch.int32).numpy()
    made = NYUD_DEPTH(depth.astype("uint16"))
    assert made.shape == (1, 2, 3)
    expected = [[math.log(max(int(v), 1)) - 7.844 for v in row] for row in depth]
    torch.testing.assert_close(made[0], torch.tensor(expected))
    with pytest.raises(ValueError, match=r"must be uint16 \(H, W, 1\).*got uint8 \(2, 3\)"):
        NYUD_DEPTH(depth.astype("uint8"))
