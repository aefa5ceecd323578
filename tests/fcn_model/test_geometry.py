from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from fcn_model.backbones import backbone
from fcn_model.errors import SpecError
from fcn_model.geometry import Layer, crop_offset, output_size, receptive_field, stride
from fcn_model.heads import SkipHead, upsampling
from fcn_model.spec import Head, NetworkSpec

HEADS: tuple[Head, ...] = ("fcn32s", "fcn16s", "fcn8s")
CAFFENET = (
    Layer(11, stride=4, pad=100),
    Layer(3, stride=2, ceil=True),
    Layer(5, pad=2),
    Layer(3, stride=2, ceil=True),
    Layer(3, pad=1),
    Layer(3, pad=1),
    Layer(3, pad=1),
    Layer(3, stride=2, ceil=True),
    Layer(6),
)


def head_of(name: Head) -> SkipHead:
    spec = NetworkSpec(num_classes=21, head=name)
    return SkipHead(spec, backbone(spec))


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
    assert crop_offset((*CAFFENET, Layer(63, stride=32, transposed=True)), ()) == 18
    with pytest.raises(SpecError, match="crop offset must be a whole number, got 37/2"):
        crop_offset((*CAFFENET, Layer(64, stride=32, transposed=True)), ())


def test_receptive_fields_and_strides_are_those_of_table_1() -> None:
    vgg = backbone(NetworkSpec(num_classes=21)).path("fc7")
    assert (receptive_field(vgg), stride(vgg)) == (404, 32)
    assert (receptive_field(CAFFENET), stride(CAFFENET)) == (355, 32)


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
def test_every_crop_lies_inside_its_map_for_every_image_size(head: Head) -> None:
    trunk, composed = backbone(NetworkSpec(num_classes=21)), head_of(head)
    for image in range(1, 601):
        size = output_size(trunk.path("fc7"), image)
        for fusion in composed.fusions:
            size = upsampling(fusion.factor).output_size(size)
            skip = output_size(trunk.path(fusion.feature), image)
            assert fusion.offset + size <= skip, (image, fusion)
        size = upsampling(composed.final_factor).output_size(size)
        assert composed.final_offset + image <= size, image


def test_pooling_that_rounds_down_would_break_the_crop_of_a_500_pixel_image() -> None:
    path = [
        Layer(layer.kernel, layer.stride, layer.pad)
        for layer in backbone(NetworkSpec(num_classes=21)).path("fc7")
    ]
    enlarged = output_size([*path, upsampling(32)], 500)
    assert enlarged < crop_offset([*path, upsampling(32)], ()) + 500


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
