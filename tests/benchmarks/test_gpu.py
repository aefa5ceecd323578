"""The arithmetic that a GPU's times are held against."""

from __future__ import annotations

import pytest

from benchmarks.gpu import arithmetic
from fcn_model import NetworkSpec


def test_the_floor_with_the_ring_is_twice_the_products_of_every_layer() -> None:
    """By hand, from the sizes of VGG16's maps; the paper's network at 500 x 500."""
    side, products, channels = 500 + 2 * 100 - 2, 0, 3
    for outputs, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(convolutions):
            products += side * side * 9 * channels * outputs
            channels = outputs
        side = -(-side // 2)
    side -= 6
    products += side * side * (49 * 512 * 4096 + 4096 * 4096)
    assert arithmetic(NetworkSpec(num_classes=21), (500, 500), ring=True) == 2 * products
    assert round(2 * products / 1e9) == 362


def test_without_the_ring_every_window_is_what_the_image_can_have_changed() -> None:
    """By hand: each 3x3 widens the window by one on both sides, each pool halves it."""
    window, products, channels = 500, 0, 3
    for outputs, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3)):
        for _ in range(convolutions):
            window += 2
            products += window * window * 9 * channels * outputs
            channels = outputs
        window = window // 2 + 1
    products += 3 * 44 * 44 * 9 * 512 * 512  # by then it has reached the edge
    products += 16 * 16 * (49 * 512 * 4096 + 4096 * 4096)
    found = arithmetic(NetworkSpec(num_classes=21), (500, 500), ring=False)
    assert found == pytest.approx(2 * products, rel=0.02)
    assert round(found / 1e9) == 253


def test_a_network_of_few_products_has_little_of_either() -> None:
    spec = NetworkSpec(num_classes=21, backbone="googlenet")
    whole, left = (arithmetic(spec, (500, 500), ring=ring) for ring in (True, False))
    assert 0.7 * whole < left < whole
