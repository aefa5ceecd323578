"""Masks by tiles beside masks of the whole image, and the memory that a large image takes.

    python -m benchmarks.tiling
    python -m benchmarks.tiling --nets 0 --large 20000

The first table has every backbone with every head, and the variations, at a sixteenth of the width
with random scores: pixels of the image whose class differs between one pass and tiles, and how far
apart the two best scores are at the worst of them, in parts of the range of scores. The second
has square images in a process of its own each: by how much its resident memory grows beyond the
image, which the mask is a part of. Peaks are read from /proc, so it needs Linux.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from benchmarks import machine
from fcn_model import FCN, ClassList, ModelConfig, NetworkSpec, Segmenter, build
from fcn_model.normalize import TORCHVISION
from fcn_model.segmenter import Precision
from fcn_model.spec import AT_ONCE_SCALES, FC_WIDTH, BackboneName, Head, Stream, Task
from fcn_model.tile_plans import tile_plan

Image = NDArray[np.uint8]

CLASSES = 21
PATCH = 32
CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Tiles against whole images, and the memory of large ones."""

    size: tuple[int, int] = (701, 1003)
    """Height and width of the image of the first table."""
    times_smallest: float = 1.5
    """The budget of its tiles, in pixels of the smallest that the network can have."""
    nets: int | None = None
    """How many of its nets, all by default."""
    large: tuple[int, ...] = (2_500, 5_000)
    """Heights, which are the widths too, of the images of the second table."""
    large_tile_pixels: int = 4_000_000
    """The budget of their tiles."""


def main() -> None:
    """Print both tables."""
    options = tyro.cli(Options, description=__doc__)
    print(machine.describe(), flush=True)
    specs = list(nets())[: options.nets]
    if specs:
        print(
            f"\nan image of {options.size[0]} x {options.size[1]}, tiles of up to "
            f"{options.times_smallest:g} times the smallest; whole and tiles: pixels of all "
            "windows for each of the image\n\n"
            f"{'':70}{'tiles':>6}{'window':>12}{'whole':>7}{'tiles':>7}{'differ':>8}{'tie':>9}"
        )
    for spec in specs:
        for precision in get_args(Precision):
            print(compared(spec, precision, options), flush=True)
    if options.large:
        print(
            f"\nsquare images, tile_pixels {options.large_tile_pixels:,}; "
            f"{small('vgg16', 'fcn8s').name}\n\n"
            f"{'size':>7}{'tiles':>7}{'per pixel':>11}{'image MB':>10}{'mask MB':>9}"
            f"{'growth MB':>11}{'less mask':>11}{'seconds':>9}"
        )
    for size in options.large:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as process:
            print(process.submit(measured, size, options.large_tile_pixels).result(), flush=True)


def small(backbone: BackboneName, head: Head) -> NetworkSpec:
    """A sixteenth of the layout's channels."""
    fc = FC_WIDTH if "googlenet" in backbone else 16
    return NetworkSpec(num_classes=CLASSES, backbone=backbone, head=head, width=1 / 16, fc_width=fc)


def nets() -> Iterator[NetworkSpec]:
    """Every backbone with every head, then the variations of FCN-8s VGG16."""
    for backbone in get_args(BackboneName):
        for head in get_args(Head):
            yield small(backbone, head)
    plain = small("vgg16", "fcn8s")
    yield replace(plain, skip_scales=AT_ONCE_SCALES)
    yield replace(plain, upsampling="learned")
    yield replace(plain, more_tasks=(Task("geo", 3),))
    yield replace(plain, streams=(Stream("color", 3), Stream("hha", 3)))


def compared(spec: NetworkSpec, precision: Precision, options: Options) -> str:
    """One line of the first table."""
    network, config = random_network(spec), config_of(spec)
    image = picture(*options.size)
    planes = dict.fromkeys(config.needs, image[::-1])
    budget = int(options.times_smallest * tile_plan(spec, options.size, 1).pixels)
    whole, tiled = (
        Segmenter(network, config, device="cpu", precision=precision, tile_pixels=tile_pixels)
        for tile_pixels in (10**12, budget)
    )
    differing = tiled(image, **planes) != whole(image, **planes)
    tie = f"{nearness(whole, image, planes, differing):.1e}" if differing.any() else "-"
    plan, one = (tile_plan(spec, options.size, pixels) for pixels in (budget, 10**12))
    window = f"{plan.window[0]} x {plan.window[1]}"
    return (
        f"{spec.name[:63]:64}{precision:6}{plan.count:6}{window:>12}{one.overhead:7.2f}"
        f"{plan.overhead:7.2f}{int(differing.sum()):8,}{tie:>9}"
    )


@torch.inference_mode()
def nearness(
    whole: Segmenter, image: Image, planes: dict[str, Image], differing: NDArray[np.bool_]
) -> float:
    """How far apart the two best scores are at most where ``differing``, in parts of the range."""
    inputs = [TORCHVISION(part) for part in (image, *planes.values())]
    dtype = next(whole.network.parameters()).dtype
    scores = whole.network(torch.cat(inputs)[None].to(dtype))[0, :CLASSES].numpy()
    second, first = np.sort(scores, axis=0)[-2:]
    return float((first - second)[differing].max() / np.ptp(scores))


def measured(size: int, tile_pixels: int) -> str:
    """One line of the second table; runs in a process of its own."""
    spec = small("vgg16", "fcn8s")
    segmenter = Segmenter(
        random_network(spec), config_of(spec), device="cpu", tile_pixels=tile_pixels
    )
    segmenter(picture(300, 300))  # whatever torch keeps from its first pass on
    image = picture(size, size)
    CLEAR.write_text("5")
    before, started = machine.resident("VmRSS"), time.perf_counter()
    mask = segmenter(image)
    seconds, growth = time.perf_counter() - started, machine.resident("VmHWM") - before
    assert mask.shape == image.shape[:2]
    plan = tile_plan(spec, (size, size), tile_pixels)
    return (
        f"{size:7,}{plan.count:7,}{plan.overhead:11.2f}{image.nbytes / 1e6:10,.0f}"
        f"{mask.nbytes / 1e6:9,.0f}{growth / 1e6:11,.0f}{(growth - mask.nbytes) / 1e6:11,.0f}"
        f"{seconds:9,.0f}"
    )


def picture(height: int, width: int) -> Image:
    """Patches of colour under noise, written a row of patches at a time."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 64, (PATCH, width, 3), np.uint8)
    image = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, PATCH):
        colors = rng.integers(0, 192, (1, -(-width // PATCH), 3), np.uint8)
        rows = image[top : top + PATCH]
        np.add(noise[: len(rows)], colors.repeat(PATCH, axis=1)[:, :width], out=rows)
    return image


@torch.no_grad()
def random_network(spec: NetworkSpec) -> FCN:
    """Random scores whose classes are equally strong on average."""
    network = build(spec).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if name.startswith("score"):
            parameter.normal_(0, 1, generator=generator)
    sample = TORCHVISION(picture(200, 200))
    scores = network(sample.repeat(spec.in_channels // 3, 1, 1)[None])
    for head, part in zip(network.heads, spec.split(scores), strict=True):
        for stream in spec.streams:
            bias = network.get_parameter(f"score_fr{head.suffix}{stream.name}.bias")
            bias.sub_(part.mean((0, 2, 3)))
    return network


def config_of(spec: NetworkSpec) -> ModelConfig:
    """Numbered classes; further streams are planes of three channels."""
    lists = [
        ClassList(names=tuple(f"c{index}" for index in range(task.num_classes)))
        for task in spec.tasks
    ]
    return ModelConfig(
        spec=spec,
        classes=lists[0],
        normalization=TORCHVISION,
        more_classes=tuple(lists[1:]),
        planes=tuple((stream.name, TORCHVISION) for stream in spec.streams[1:]),
    )


if __name__ == "__main__":
    main()
