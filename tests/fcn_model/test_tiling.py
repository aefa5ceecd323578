"""Tiles give what the whole image gives, and depend on no pixel more than they must."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from fcn_model import FCN, NetworkSpec
from fcn_model.cones import cone_of
from fcn_model.geometry import receptive_field
from fcn_model.spec import AT_ONCE_SCALES, BackboneName, Head, Stream, Task
from fcn_model.tile_plans import Strip, TilePlan, plans, tile_plan
from fcn_model.tiling import coarse_scores
from tests.support.networks import narrow_spec, random_network

HEADS: tuple[Head, ...] = ("fcn32s", "fcn16s", "fcn8s")
BACKBONES: tuple[BackboneName, ...] = get_args(BackboneName)
NETS = list(itertools.product(BACKBONES, HEADS))


def several(spec: NetworkSpec, across: int = 3, spare: int = 61) -> tuple[tuple[int, int], int]:
    """An image so long that the smallest windows but one are three, and their budget."""
    cone = cone_of(spec)
    size = across, cone.seam.overlap + 3 * 2 * cone.stride - 2 * cone.pad - spare
    smallest = tile_plan(spec, size, 1)
    rows, columns = smallest.window
    first = smallest.first
    return size, first.output_size(rows) * first.output_size(columns + cone.stride)


def in_tiles(network: FCN, image_NCHW: Tensor, plan: TilePlan, *, task: int = 0) -> Tensor:
    """The scores of every tile in its place."""
    padded, head = F.pad(image_NCHW, [plan.pad] * 4), network.heads[task]
    classes = network.spec.tasks[task].num_classes
    scores = image_NCHW.new_full((len(image_NCHW), classes, *plan.size), torch.nan)
    for rows, columns in plan.tiles:
        window = padded[:, :, rows.start : rows.stop, columns.start : columns.stop]
        coarse = coarse_scores(network, window, task=task)
        enlarged = dict(network.named_children())[head.final_upsample](coarse)
        top, left = (head.final_offset + each.begin - each.start for each in (rows, columns))
        block = enlarged[:, :, top : top + rows.end - rows.begin]
        block = block[..., left : left + columns.end - columns.begin]
        scores[:, :, rows.begin : rows.end, columns.begin : columns.end] = block
    return scores


@torch.inference_mode()
def agree(network: FCN, size: tuple[int, int], budget: int, *, tiles: int, task: int = 0) -> None:
    plan = tile_plan(network.spec, size, budget)
    assert plan.count >= tiles
    generator = torch.Generator().manual_seed(1)
    shape = (1, network.spec.in_channels, *size)
    image = torch.randn(shape, generator=generator, dtype=torch.float64)
    whole = network.spec.split(network(image))[task]
    assert whole.std() > 1e-3
    # Float64 leaves rounding of 1e-14; a pixel that is missing is a million times larger.
    scale = float(whole.abs().max())
    torch.testing.assert_close(
        in_tiles(network, image, plan, task=task), whole, rtol=0, atol=1e-10 * scale
    )


@pytest.mark.parametrize(("backbone", "head"), NETS)
def test_scores_of_tiles_are_those_of_the_whole_image(backbone: BackboneName, head: Head) -> None:
    network = random_network(head, backbone=backbone, dtype=torch.float64)
    size, budget = several(network.spec, 1, 61)
    agree(network, size, budget, tiles=3)
    size, budget = several(network.spec, 6, 40)
    agree(network, size[::-1], budget, tiles=3)


@pytest.mark.parametrize("width", range(301, 333, 5))
def test_an_image_may_end_at_any_phase_of_the_stride(width: int) -> None:
    network = random_network("fcn8s", backbone="caffenet", dtype=torch.float64)
    agree(network, (2, width), 1, tiles=3)


@pytest.mark.parametrize(
    "more",
    [
        {"upsampling": "learned"},
        {"upsampling": "intermediate"},
        {"skip_scales": AT_ONCE_SCALES},
        {"streams": (Stream("color", 3), Stream("hha", 3))},
        {"streams": (Stream("", 4),)},
        {"more_tasks": (Task("geo", 3),)},
    ],
    ids=lambda more: next(iter(more)),
)
def test_tiles_of_every_variation_are_those_of_the_whole_image(more: dict[str, Any]) -> None:
    network = random_network("fcn8s", backbone="alexnet", dtype=torch.float64, **more)
    size, budget = (331, 290), several(network.spec)[1] * 2
    agree(network, size, budget, tiles=4, task=len(network.spec.tasks) - 1)


def all_seeing(backbone: BackboneName, head: Head) -> FCN:
    """Positive weights and no biases: a score is zero until a pixel that it depends on is not."""
    network = random_network(head, backbone=backbone, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.abs_()
            if name.endswith("bias"):
                parameter.zero_()
    return network


@pytest.mark.parametrize(("backbone", "head"), NETS)
@torch.inference_mode()
def test_a_pixel_changes_the_scores_whose_cone_has_it_and_no_other(
    backbone: BackboneName, head: Head
) -> None:
    network = all_seeing(backbone, head)
    cone = cone_of(network.spec)
    pixels = (430, 447)
    images = torch.zeros(2, 3, 1, 900, dtype=torch.float64)
    for image, pixel in zip(images, pixels, strict=True):
        image[..., pixel] = 1
    changed = (network(images) > 0).any(1)[:, 0]
    for places, pixel in zip(changed, pixels, strict=True):
        cones = [cone.needed(place, place + 1) for place in range(900)]
        holding = [start <= pixel + cone.pad < stop for start, stop in cones]
        assert places.tolist() == holding
        assert not holding[0]
        assert not holding[-1]
    assert cone.needed(300, 500) == (cone.needed(300, 301)[0], cone.needed(499, 500)[1])


@pytest.mark.parametrize(("backbone", "head"), NETS)
def test_neighbours_share_a_receptive_field_and_what_alignment_costs(
    backbone: BackboneName, head: Head
) -> None:
    # Scores either side of a cut have one coarse score in common, and windows start at a stride.
    cone = cone_of(NetworkSpec(num_classes=21, backbone=backbone, head=head))
    field = receptive_field(cone.head.score_path)
    assert field <= cone.seam.overlap < field + 2 * cone.stride


def test_the_halo_of_vgg16_follows_from_its_receptive_field_of_404() -> None:
    # 404 rounded up to where windows start; a skip shifts the grid of the top's scores by half.
    overlaps = {head: cone_of(narrow_spec(head)).seam.overlap for head in HEADS}
    assert overlaps == {"fcn32s": 404 + 7, "fcn16s": 404 + 39, "fcn8s": 404 + 39}


def brute_force(spec: NetworkSpec, size: tuple[int, int], budget: int) -> int | None:
    """Window pixels of the cheapest plan of equal steps, over every pair of steps."""
    cone = cone_of(spec)
    costs = []
    axes = []
    for extent in size:
        length, ways = extent + 2 * cone.pad, []
        for step in range(cone.stride, length + cone.stride, cone.stride):
            edges = [0]
            while edges[-1] + step + cone.seam.overlap < length:
                edges.append(edges[-1] + step)
            windows = [min(length, edge + step + cone.seam.overlap) - edge for edge in edges]
            ways.append((max(windows), sum(windows)))
        axes.append(ways)
    for (high, rows), (wide, columns) in itertools.product(*axes):
        if cone.first.output_size(high) * cone.first.output_size(wide) <= budget:
            costs.append(rows * columns)
    return min(costs, default=None)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_plan_covers_the_image_once_within_the_budget_at_the_least_work(
    backbone: BackboneName,
) -> None:
    spec = narrow_spec("fcn8s", backbone=backbone)
    cone = cone_of(spec)
    rng = np.random.default_rng(0)
    raised = 0
    for _ in range(12):
        size = (int(rng.integers(1, 1500)), int(rng.integers(1, 1500)))
        whole = tile_plan(spec, size, 10**9)
        assert whole.count == 1
        budget = int(whole.pixels * rng.uniform(0.1, 1.1))
        plan = tile_plan(spec, size, budget)
        for extent, strips in zip(size, (plan.rows, plan.columns), strict=True):
            check_strips(spec, extent, strips)
        best = brute_force(spec, size, budget)
        work = round(plan.overhead * size[0] * size[1])
        if best is None:
            raised += 1
            step = cone.stride + cone.seam.overlap
            assert plan.window == tuple(min(extent + 2 * cone.pad, step) for extent in size)
        else:
            assert plan.pixels <= budget
            assert work == best
    assert raised < 12


def check_strips(spec: NetworkSpec, extent: int, strips: tuple[Strip, ...]) -> None:
    cone = cone_of(spec)
    length = extent + 2 * cone.pad
    assert strips[0].begin == strips[0].start == 0
    assert (strips[-1].end, strips[-1].stop) == (extent, length)
    assert all(left.end == right.begin for left, right in itertools.pairwise(strips))
    for strip in strips:
        assert strip.begin < strip.end
        assert strip.start % cone.stride == 0
        start, stop = cone.needed(strip.begin, strip.end)
        assert strip.start <= max(0, start)
        assert strip.stop >= min(length, stop)


def test_overhead_of_a_large_image_nears_one_as_the_budget_grows() -> None:
    spec = NetworkSpec(num_classes=21)
    ceilings = {10**6: 3.2, 10**7: 1.4, 10**8: 1.1}
    figures = {budget: tile_plan(spec, (20_000, 20_000), budget) for budget in ceilings}
    for budget, plan in figures.items():
        assert plan.pixels <= budget
        assert plan.overhead < ceilings[budget]


def test_plans_for_less_memory_take_half_until_the_smallest_tiles() -> None:
    spec = narrow_spec()
    ladder = list(plans(spec, (900, 1100), 10**6, below=10**7))
    taken = [plan.pixels for plan in ladder]
    assert taken[0] <= 10**6
    assert all(after <= before // 2 for before, after in itertools.pairwise(taken[:-1]))
    assert taken[-1] < taken[-2]
    assert taken[-1] == tile_plan(spec, (900, 1100), 1).pixels
    assert list(plans(spec, (900, 1100), 10**6, below=taken[-1])) == []


@pytest.mark.parametrize(("size", "budget"), [((0, 5), 10), ((5, 5), 0)])
def test_an_empty_image_or_budget_has_no_plan(size: tuple[int, int], budget: int) -> None:
    with pytest.raises(ValueError, match=r"at least 1, got an image of \d x 5 .* tile_pixels \d"):
        tile_plan(narrow_spec(), size, budget)
