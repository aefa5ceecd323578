"""A whole image at once against patch by patch: the paper's section 3.1 and its footnote 1.

    python -m benchmarks.patchwise

AlexNet gives a 10×10 grid of outputs for a 500×500 image in one forward pass. A classifier gives
the same grid from 100 patches of its own input size at its own stride, which is what the paper
times. Nothing is trained: random weights, the classifier's padding, outputs of fc7.

A patch is padded where the image goes on, so its output is not the image's. Windows that reach as
far as the receptive field are: before anything is timed, they must give the values of the grid at
every output whose field lies in the image.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
import tyro
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import machine
from fcn_model import NetworkSpec
from fcn_model.backbones import classifier_trunk
from fcn_model.backbones.steps import make_layers
from fcn_model.backbones.trunk import Trunk
from fcn_model.extents import Extents
from fcn_model.geometry import Layer, coordinates, receptive_field, stride
from fcn_model.spec import BackboneName

IMAGE = 500
PATCH: dict[BackboneName, int] = {"caffenet": 227, "alexnet": 224}
"""The classifiers' own input sizes."""

PAPER = {"patches, batched": 5.45, "patches, one by one": 24.5, "backward, batched": 6.5}
"""120 / 22, 540 / 22 and 240 / 37 ms: times of 100 patches over that of the grid, on a GPU."""

TOLERANCE = 1e-4
"""Of the range of the outputs: float32 sums in another order."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time a whole image against its patches."""

    repetitions: int = 5
    """How often each way is timed, in turn with the others."""


class Features(nn.Module):
    """The trunk of a classifier up to fc7, with fresh weights and without dropout."""

    def __init__(self, backbone: BackboneName) -> None:
        super().__init__()
        self.trunk: Trunk = classifier_trunk(NetworkSpec(num_classes=1, backbone=backbone))
        for name, layer in make_layers(self.trunk.steps).items():
            self.add_module(name, layer)
        self.eval()

    @property
    def path(self) -> tuple[Layer, ...]:
        """The layers from the image to fc7."""
        return self.trunk.path(self.trunk.top)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """(N, 4096, h, w)."""
        layers = dict(self.named_children())
        return self.trunk.run(layers, images_NCHW, Extents(None))[self.trunk.top]


def main() -> None:
    """Check and time both forms of AlexNet."""
    options = tyro.cli(Options, description=__doc__)
    print(machine.describe("torchvision"))
    for backbone, size in PATCH.items():
        torch.manual_seed(0)
        network = Features(backbone)
        image = torch.randn(1, 3, IMAGE, IMAGE)
        patches = cut(image, size, stride(network.path), 10)
        print(
            f"\n{backbone}: 10×10 outputs of a {IMAGE}×{IMAGE} image or 100 patches of "
            f"{size}×{size}, float32"
        )
        compared, error = compare(network, image)
        print(
            f"{compared} outputs equal those of windows of the image, to {error:.1e} of the range"
        )
        report(network, image, patches, options.repetitions)


def cut(image_1CHW: Tensor, size: int, step: int, count: int) -> Tensor:
    """(count², C, size, size) patches, one every ``step`` pixels from the top left, row by row.

    The last ones may reach beyond the image, which is zero there.
    """
    needed = (count - 1) * step + size
    height, width = image_1CHW.shape[2:]
    image = F.pad(image_1CHW, (0, max(0, needed - width), 0, max(0, needed - height)))
    windows = image[0].unfold(1, size, step).unfold(2, size, step)[:, :count, :count]
    return windows.permute(1, 2, 0, 3, 4).reshape(-1, image.shape[1], size, size).contiguous()


def window(path: Sequence[Layer]) -> tuple[int, int]:
    """Which output of a small image has its whole receptive field inside, and the image's size.

    It is the first such output, at (index, index) of the grid.
    """
    step, half = stride(path), (receptive_field(path) - 1) // 2
    centre = int(coordinates(path).offset)
    index = max(0, -((centre - half) // step))
    return index, index * step + centre + half + 1


@torch.inference_mode()
def compare(network: Features, image: Tensor) -> tuple[int, float]:
    """Hold windows of ``image`` against the grid; returns how many, and the largest difference.

    The difference is in parts of the range of the outputs. Raises AssertionError for more than
    `TOLERANCE`.
    """
    step = stride(network.path)
    grid_Khw = network(image)[0]
    index, size = window(network.path)
    inside = (image.shape[2] - size) // step + 1
    windows = cut(image, size, step, inside)
    outputs = torch.stack([network(one[None])[0, :, index, index] for one in windows], 1)
    wanted = grid_Khw[:, index : index + inside, index : index + inside].flatten(1)
    error = float((outputs - wanted).abs().max() / (wanted.max() - wanted.min()))
    assert error < TOLERANCE, f"a window and the image differ by {error:.2e} of the range"
    return inside**2, error


def report(network: Features, image: Tensor, patches: Tensor, repetitions: int) -> None:
    """Print median times, their spread, and the ratios beside the paper's."""
    with torch.inference_mode():
        grid, listed = network(image), network(patches)
    assert grid.shape[1:] == (4096, 10, 10), grid.shape
    assert listed.shape == (100, 4096, 1, 1), listed.shape
    seconds = timed(
        {
            "whole image": lambda: forward(network, image),
            "patches, batched": lambda: forward(network, patches),
            "patches, one by one": lambda: [forward(network, one[None]) for one in patches],
        },
        repetitions,
    ) | timed(
        {
            "backward, whole image": lambda: backward(network, image),
            "backward, batched": lambda: backward(network, patches),
        },
        repetitions,
    )
    print(f"\n{'':24}{'median s':>10}{'min':>8}{'max':>8}{'ratio':>8}{'paper':>8}")
    for name, times in seconds.items():
        whole = "backward, whole image" if name.startswith("backward") else "whole image"
        ratio = statistics.median(times) / statistics.median(seconds[whole])
        paper = f"{PAPER[name]:.3g}" if name in PAPER else ""
        print(
            f"{name:24}{statistics.median(times):10.3f}{min(times):8.3f}{max(times):8.3f}"
            f"{ratio:8.2f}{paper:>8}"
        )
    operations = multiply_adds(network, patches) / multiply_adds(network, image)
    print(f"{'multiply-adds, forward':50}{operations:8.2f}")


def timed(ways: dict[str, Callable[[], object]], repetitions: int) -> dict[str, list[float]]:
    """Seconds of each way; a way that returns seconds is believed. One round warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repetitions + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            result = way()
            took = result if isinstance(result, float) else time.perf_counter() - started
            if turn:
                seconds[name].append(took)
    return seconds


@torch.inference_mode()
def forward(network: Features, images: Tensor) -> None:
    """One forward pass."""
    network(images)


def backward(network: Features, images: Tensor) -> float:
    """Seconds of one backward pass to all parameters, without the forward pass."""
    network.zero_grad()
    total = network(images).sum()
    started = time.perf_counter()
    total.backward()
    return time.perf_counter() - started


def multiply_adds(network: Features, images: Tensor) -> int:
    """Of one forward pass."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(images)
    return counter.get_total_flops() // 2


if __name__ == "__main__":
    main()
