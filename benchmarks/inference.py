"""Image to mask: ours beside a plain eager forward.

    python -m benchmarks.inference --checkpoint runs/voc/best --images photographs
    python -m benchmarks.inference --weights vgg16-397923af.pth

The plain one is what a user of pytorch-fcn runs: fp32, contiguous memory, the whole ring of
padding, dense upsampling kernels, argmax over the full map of scores (`tests.support.pytorch_fcn`,
with the weights of ours). All kinds take turns, image by image, so that other work on the machine
slows all; every ratio is of two times of one turn. Masks are compared pixel by pixel. In bfloat16
only those of a trained network tell anything: random scores are often nearly equal.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import nn

from benchmarks.machine import describe
from benchmarks.photographs import photo
from benchmarks.ratios import Ratio, table
from fcn_model import (
    FCN,
    ClassList,
    ModelConfig,
    NetworkSpec,
    Segmenter,
    build,
    checkpoint,
    surgery,
)
from fcn_model.layers import dense_bilinear
from fcn_model.normalize import TORCHVISION
from fcn_model.precision import has_bf16
from fcn_model.weights import read_weights
from pipelines import images
from tests.support.pytorch_fcn import PytorchFCN

Image = NDArray[np.uint8]
Kind = Callable[[Image], Image]


GOALS = {"ours": (2.2, 10.0), "ours, bf16": (5.0, 5000.0)}
"""How many times as fast, and how many pixels in a million may differ: 99.999 and 99.5 % equal."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """FCN-8s VGG16, one image at a time."""

    checkpoint: Path | None = None
    """A trained FCN-8s VGG16; else the layers after the backbone's are random."""
    weights: Path | None = None
    """A file of VGG16 weights to begin a random one with."""
    classes: int = 21
    """Of a random one."""
    height: int = 360
    """Of the images, in pixels."""
    width: int = 480
    """Of the images, in pixels."""
    images: Path | None = None
    """Folder of photographs; else images are blocks with noise, of the size above."""
    repeats: int = 5
    """Turns, after one that is not timed."""


def main() -> None:
    """Print the table."""
    options = tyro.cli(Options, description=__doc__)
    print(describe())
    print(f"{options.width} x {options.height}, batch 1, {torch.get_num_threads()} threads\n")
    print(table(measure(options)))


def measure(options: Options) -> list[Ratio]:
    """Times of the plain one over those of the others, and how many pixels agree."""
    network, config = model(options)
    kinds = dict(forms(network, config))
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    differ: dict[str, list[float]] = {name: [] for name in kinds}
    classes: list[int] = []
    for turn, image in enumerate(pictures(options)):
        expected = None
        for name, kind in kinds.items():
            started = time.perf_counter()
            mask = kind(image)
            passed = time.perf_counter() - started
            expected = mask if expected is None else expected
            if turn:
                seconds[name].append(passed)
                differ[name].append(1e6 * float((mask != expected).mean()))
        assert expected is not None
        classes.append(len(np.unique(expected)))
    print(f"classes in a mask: {min(classes)} to {max(classes)}")
    plain = seconds.pop("plain")
    ratios = []
    for name, times in seconds.items():
        faster, same = GOALS.get(name, (None, None))
        quotients = [a / b for a, b in zip(plain, times, strict=True)]
        ratios.append(Ratio(f"plain ÷ {name}", quotients, faster))
        ratios.append(
            Ratio(f"pixels of a million that differ, {name}", differ[name], same, at_least=False)
        )
    return ratios


def model(options: Options) -> tuple[FCN, ModelConfig]:
    """The network to time."""
    if options.checkpoint is not None:
        return checkpoint.load(options.checkpoint)
    return untrained(NetworkSpec(num_classes=options.classes), options.weights)


def untrained(spec: NetworkSpec, weights: Path | None = None) -> tuple[FCN, ModelConfig]:
    """A network of random layers, where a file's ``weights`` do not fill them, and its config."""
    network = build(spec)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("score"):
                parameter.normal_(0, 0.05, generator=generator)
    if weights is not None:
        surgery.fill(read_weights(weights.read_bytes(), weights.name), network)
    classes = ClassList(names=tuple(f"class {index}" for index in range(spec.num_classes)))
    return network, ModelConfig(spec=spec, classes=classes, normalization=TORCHVISION)


def forms(network: FCN, config: ModelConfig) -> Iterator[tuple[str, Kind]]:
    """Each kind by its name, the plain one first."""
    yield "plain", Plain(network, config)
    yield "plain, channels last", Plain(network, config, torch.channels_last)
    yield "ours", Segmenter(network, config, device="cpu")
    if has_bf16(torch.device("cpu")):
        yield "ours, bf16", Segmenter(network, config, device="cpu", precision="bf16")


class Plain:
    """pytorch-fcn's FCN8s with the weights of ``network``."""

    def __init__(
        self,
        network: FCN,
        config: ModelConfig,
        memory_format: torch.memory_format = torch.contiguous_format,
        device: str = "cpu",
    ) -> None:
        spec, ours = config.spec, network.state_dict()
        for skip, scale in zip(("pool4", "pool3"), spec.skip_scales, strict=True):
            ours[f"score_{skip}.weight"] = ours[f"score_{skip}.weight"] * scale
        classes = spec.num_classes
        wide, fc = ours["conv1_1.weight"].shape[0], spec.fc_width
        self.network = PytorchFCN("FCN8s", classes, wide=wide, fc=fc)
        kernels = {
            f"{name}.weight": dense_bilinear(classes, layer.kernel_size[0])
            for name, layer in self.network.named_children()
            if isinstance(layer, nn.ConvTranspose2d)
        }
        self.network.load_state_dict(ours | kernels)
        self.network.to(device).to(memory_format=memory_format).eval()
        self.config = config
        self.memory_format = memory_format
        self.device = device

    @torch.inference_mode()
    def __call__(self, image_HW3: Image) -> Image:
        """The mask of an image."""
        image_13HW = self.config.normalization(image_HW3)[None].to(self.device)
        scores = self.network(image_13HW.contiguous(memory_format=self.memory_format))
        mask: Any = scores.argmax(1)[0].to(torch.uint8).cpu().numpy()
        return mask


def pictures(options: Options) -> Iterator[Image]:
    """(H, W, 3) uint8 images, one more than the turns."""
    if options.images is not None:
        files = itertools.cycle(sorted(options.images.iterdir()))
        for file in itertools.islice(files, options.repeats + 1):
            yield images.decode_image(file.read_bytes())
        return
    for seed in range(options.repeats + 1):
        yield photo(seed, options.height, options.width)


if __name__ == "__main__":
    main()
