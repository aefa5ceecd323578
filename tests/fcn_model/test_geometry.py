from __future__ import annotations

import random
from fractions import Fraction
from typing import get_args

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from fcn_model.backbones import backbone, classifier_trunk
from fcn_model.errors import SpecError
from fcn_model.geometry import (
    Layer,
    Window,
    coordinates,
    crop_offset,
    output_size,
    receptive_field,
    stride,
    window,
)
from fcn_model.heads import SkipHead
from fcn_model.spec import BackboneName, Head, NetworkSpec

HEADS: tuple[Head, ...] = ("fcn32s", "fcn16s", "fcn8s")
BACKBONES: tuple[BackboneName, ...] = get_args(BackboneName)


def head_of(name: Head, trunk: BackboneName = "vgg16") -> SkipHead:
    spec = NetworkSpec(num_classes=21, head=name, backbone=trunk)
    return SkipHead(spec, backbone(spec), spec.tasks[0])


def trunk_path(name: BackboneName) -> tuple[Layer, ...]:
    trunk = backbone(NetworkSpec(num_classes=21, backbone=name))
    return trunk.path(trunk.top)


def upsampling(factor: int) -> Layer:
    return Layer(2 * factor, stride=factor, transposed=True)


@pytest.mark.parametrize(
    ("head", "skips", "final"),
    [("fcn32s", [], 19), ("fcn16s", [5], 27), ("fcn8s", [5, 9], 31)],
)
def test_composed_crops_are_those_of_the_published_nets(
    head: Head, skips: list[int], final: int
) -> None:
    composed = head_of(head)
    assert [fusion.offset for fusion in composed.fusions] == skips
    assert composed.final_offset == final


def test_the_kernel_of_fcn_alexnet_must_be_odd() -> None:
    path = trunk_path("caffenet")
    with pytest.raises(SpecError, match="crop offset must be a whole number, got 37/2"):
        crop_offset((*path, Layer(64, stride=32, transposed=True)), ())
    composed = head_of("fcn32s", "caffenet")
    assert composed.final_geometry.kernel == 63
    assert composed.final_offset == 18


def test_receptive_fields_and_strides_are_those_of_table_1() -> None:
    wanted: dict[BackboneName, int]
    wanted = {"vgg16": 404, "caffenet": 355, "alexnet": 355, "googlenet": 715}
    for name, field in wanted.items():
        path = trunk_path(name)
        assert (receptive_field(path), stride(path)) == (field, 32), name


def test_googlenets_907_is_that_of_the_net_with_its_average_pool() -> None:
    trunk = classifier_trunk(NetworkSpec(num_classes=21, backbone="googlenet"))
    assert receptive_field(trunk.path("pool5")) == 907
    assert receptive_field(trunk.path("inception_5b/output")) == 715


@pytest.mark.parametrize(
    ("image", "conv1_1", "pool3", "pool4", "pool5", "fc6"),
    [
        (500, 698, 88, 44, 22, 16),
        (375, 573, 72, 36, 18, 12),
        (256, 454, 57, 29, 15, 9),
        (640, 838, 105, 53, 27, 21),
        (425, 623, 78, 39, 20, 14),
        (1, 199, 25, 13, 7, 1),
    ],
)
def test_map_sizes_are_caffes(
    image: int, conv1_1: int, pool3: int, pool4: int, pool5: int, fc6: int
) -> None:
    trunk = backbone(NetworkSpec(num_classes=21))
    names = ("conv1_1", "pool3", "pool4", "pool5", "fc6")
    sizes = [output_size(trunk.path(name), image) for name in names]
    assert sizes == [conv1_1, pool3, pool4, pool5, fc6]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", BACKBONES)
def test_every_crop_lies_inside_its_map_for_every_image_size(
    head: Head, name: BackboneName
) -> None:
    composed = head_of(head, name)
    for image in range(1, 601):
        *maps, enlarged = composed.sizes(image)
        assert composed.final_offset + image <= enlarged, image
        for fusion, coarse in zip(composed.fusions, maps, strict=False):
            size = fusion.geometry.output_size(coarse)
            skip = output_size(fusion.skip_path, image)
            if "googlenet" not in name:  # as in the released nets, nothing is cut off
                assert fusion.trim == 0
                assert fusion.offset + size <= skip, (image, fusion)
            assert min(size - fusion.trim, skip - fusion.offset) >= 1


def test_pooling_that_rounds_down_would_break_the_crop_of_a_500_pixel_image() -> None:
    path = [Layer(layer.kernel, layer.stride, layer.pad) for layer in trunk_path("vgg16")]
    enlarged = output_size([*path, upsampling(32)], 500)
    assert enlarged < crop_offset([*path, upsampling(32)], ()) + 500


def random_chain(draw: random.Random) -> list[tuple[Layer, bool]]:
    """Layers, and of each whether it pools."""
    chain = []
    for _ in range(draw.randint(1, 5)):
        kernel, pools = draw.randint(1, 5), draw.random() < 0.5
        pad = draw.randint(0, kernel // 2 if pools else kernel)
        layer = Layer(kernel, draw.randint(1, 3), pad, ceil=pools and draw.random() < 0.5)
        chain.append((layer, pools))
    return chain


def what_outputs_see(chain: list[tuple[Layer, bool]], inputs: int) -> list[list[int]]:
    """The inputs that change each output: every one is raised by itself."""
    x = torch.eye(inputs)[:, None]
    for layer, pools in chain:
        if pools:
            x = F.max_pool1d(x, layer.kernel, layer.stride, layer.pad, ceil_mode=layer.ceil)
        else:
            x = F.conv1d(x, torch.ones(1, 1, layer.kernel), None, layer.stride, layer.pad)
        x = (x > 0).float()
    return [output.nonzero().flatten().tolist() for output in x[:, 0].T]


def test_a_chain_composes_to_what_its_outputs_are_seen_to_depend_on() -> None:
    draw, compared = random.Random(0), 0
    for _ in range(100):
        chain, inputs = random_chain(draw), draw.randint(120, 200)
        whole = window(layer for layer, _ in chain)
        reach = Fraction(whole.kernel - 1, 2)
        for index, seen in enumerate(what_outputs_see(chain, inputs)):
            centre = whole.offset + index * whole.stride
            if centre - reach >= 0 and centre + reach < inputs:  # elsewhere padding is seen as well
                assert [Fraction(seen[0]), seen[-1]] == [centre - reach, centre + reach], chain
                compared += 1
    assert compared > 1000


def test_composition_is_the_papers_rule_and_associative() -> None:
    draw = random.Random(0)
    for _ in range(200):
        first, second, third = (
            Window.of(Layer(draw.randint(1, 7), draw.randint(1, 4), draw.randint(0, 3)))
            for _ in range(3)
        )
        both = first.then(second)
        # f_ks after g_k's' is of kernel k' + (k-1)s' and stride ss'.
        assert both.kernel == first.kernel + (second.kernel - 1) * first.stride
        assert both.stride == first.stride * second.stride
        assert both.then(third) == first.then(second.then(third))
        assert Window().then(first) == first == first.then(Window())


def test_a_path_and_its_parts_have_the_same_coordinates() -> None:
    path = (*trunk_path("vgg16"), upsampling(32))
    for cut in range(len(path) + 1):
        assert coordinates(path[:cut]).then(coordinates(path[cut:])) == coordinates(path)


def test_output_sizes_agree_with_torch() -> None:
    draw = random.Random(0)
    for _ in range(300):
        size, kernel, step = draw.randint(1, 40), draw.randint(1, 7), draw.randint(1, 4)
        pad = draw.randint(0, kernel // 2)
        x = torch.empty(1, 1, size, device="meta")
        weight = torch.empty(1, 1, kernel, device="meta")
        if size + 2 * pad >= kernel:
            layer = Layer(kernel, step, pad)
            assert layer.output_size(size) == F.conv1d(x, weight, None, step, pad).shape[2]
            layer = Layer(kernel, step, pad, ceil=True)
            pooled = F.max_pool1d(x, kernel, step, pad, ceil_mode=True)
            assert layer.output_size(size) == pooled.shape[2], layer
        layer = Layer(kernel, step, pad, transposed=True)
        if layer.output_size(size) >= 1:
            enlarged = F.conv_transpose1d(x, weight, None, step, pad)
            assert layer.output_size(size) == enlarged.shape[2]


def test_an_input_too_small_for_one_output_is_refused() -> None:
    with pytest.raises(SpecError, match="6 inputs are fewer than Layer"):
        Layer(7).output_size(6)


def test_maps_of_different_stride_or_without_overlap_have_no_crop() -> None:
    with pytest.raises(SpecError, match="two maps of one stride, got strides 2 and 1"):
        crop_offset([Layer(2, stride=2)], [])
    with pytest.raises(SpecError, match="must not be negative, got -2"):
        crop_offset([Layer(5)], [])


def test_upsampling_has_no_receptive_field_here() -> None:
    with pytest.raises(SpecError, match="without upsampling"):
        receptive_field([upsampling(2)])
