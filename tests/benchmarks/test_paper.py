"""The parts of the benchmarks on which their tables depend."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image

from benchmarks import architectures, curves, patchwise, upper_bounds
from fcn_model.layers import bilinear_kernel

WAYS = {way.name: way for way in upper_bounds.WAYS}


@pytest.mark.parametrize("factor", [4, 8, 32])
def test_enlarged_shares_are_what_the_networks_bilinear_kernel_makes_of_them(factor):
    small = torch.rand(1, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    kernel = bilinear_kernel(2 * factor)[None, None]
    wanted = F.conv_transpose2d(small, kernel, stride=factor, padding=factor // 2)[0, 0].numpy()
    up = upper_bounds.interpolate(5 * factor, factor)
    inside = slice(factor // 2, -(factor // 2))  # beyond, the kernel meets zeros
    np.testing.assert_allclose(
        (up @ small[0, 0].numpy() @ up.T)[inside, inside], wanted[inside, inside], atol=1e-6
    )


def test_each_cell_gets_the_class_that_most_of_its_valid_pixels_have():
    label = np.random.default_rng(0).choice([0, 3, 20, 255], (21, 30), p=[0.3, 0.3, 0.2, 0.2])
    mask = upper_bounds.resampled(label, 4, WAYS["majority, nearest"])
    for top in range(0, 21, 4):
        for left in range(0, 30, 4):
            cell = label[top : top + 4, left : left + 4]
            counts = np.bincount(cell[cell != 255], minlength=21)
            assert (mask[top : top + 4, left : left + 4] == counts.argmax()).all()


def test_a_cell_of_void_is_void_only_where_void_counts_as_a_class():
    label = np.zeros((8, 8), np.int64)
    label[:4, :4], label[4:, 4:] = 255, 7
    asked = {name: upper_bounds.resampled(label, 4, way)[0, 0] for name, way in WAYS.items()}
    assert asked.pop("majority, bilinear, void a class") == 21
    assert set(asked.values()) == {0}


def test_a_truth_made_of_whole_cells_scores_one_in_every_way_without_interpolation():
    cells = np.random.default_rng(1).integers(0, 21, (6, 5))
    label = np.kron(cells, np.ones((8, 8), np.int64))
    for name in ("majority, nearest", "centre pixel, nearest"):
        np.testing.assert_array_equal(upper_bounds.resampled(label, 8, WAYS[name]), label)


def test_patches_are_windows_at_the_stride_with_zeros_beyond_the_image():
    image = torch.arange(1.0, 2 * 7 * 7 + 1).view(1, 2, 7, 7)
    patches = patchwise.cut(image, 4, 2, 3)
    padded = F.pad(image, (0, 1, 0, 1))
    for index, patch in enumerate(patches):
        top, left = 2 * (index // 3), 2 * (index % 3)
        torch.testing.assert_close(patch, padded[0, :, top : top + 4, left : left + 4])
    assert len(patches) == 9
    assert (patches[-1][:, :, -1] == 0).all()


def test_windows_hold_the_receptive_field_of_one_output_and_lie_on_the_grid():
    with torch.device("meta"):
        paths = {name: patchwise.Features(name).path for name in patchwise.PATCH}
    # CaffeNet: output 2 is centred on 2·32 + 113 = 177, so its 355 pixels are 0..354. In
    # torchvision's it is 2·32 + 111 = 175, two too few: output 3, 207 + 177 + 1 pixels.
    assert patchwise.window(paths["caffenet"]) == (2, 355)
    assert patchwise.window(paths["alexnet"]) == (3, 385)


def test_multiply_adds_of_caffenet_are_the_known_724_million():
    with torch.device("meta"):
        counted = patchwise.multiply_adds(
            patchwise.Features("caffenet"), torch.zeros(1, 3, 227, 227)
        )
    assert counted == 724_406_816 - 4096 * 1000  # all of it but fc8


def test_every_net_meets_its_published_figures(capsys):
    assert all([*architectures.backbones(), *architectures.networks()])
    assert "134,362,751  134,362,751" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 4037, [0, 1000, 2000, 3000, 4000, 5000]),
        (0.16, 0.69, [0, 0.2, 0.4, 0.6, 0.8]),
        (0.61, 0.65, [0.61, 0.62, 0.63, 0.64, 0.65]),
        (3, 3, [3]),
    ],
)
def test_ticks_are_round_and_enclose_the_values(low, high, wanted):
    got = curves.ticks(low, high)
    assert got[: len(wanted)] == pytest.approx(wanted)
    assert got[0] <= low + 1e-9
    assert got[-1] >= high - 1e-9
    assert len(got) >= 2


def test_the_points_of_each_run_are_drawn_where_the_axes_say():
    history = [
        {"images": 100, "loss": 2.0, "mean_iu": 0.2},
        {"images": 500, "loss": 1.0, "mean_iu": 0.6},
    ]
    other = [{"images": 300, "loss": 1.5, "mean_iu": 0.5}]
    data = curves.draw({"one": history, "two": other})
    picture = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    frame = curves.Frame((0, 500), (0.2, 0.6))
    for run, color in ((history, curves.COLORS[0]), (other, curves.COLORS[1])):
        for entry in run:
            x, y = frame.place(entry["images"], entry["mean_iu"])
            pixel = picture[round(y), round(x) + curves.WIDTH].astype(int)
            assert np.abs(pixel - color).max() < 40, (entry, pixel)
