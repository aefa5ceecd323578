"""Networks on a GPU: images a second at the best batch, and how long a single image takes.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --checkpoint runs/voc/best --images photographs

Each in bfloat16 from normalized images on the device to masks on the device, and a single image
also from uint8 pixels on the host to its mask on the host. Beside it FCN-8s VGG16 as a user of
pytorch-fcn runs it (`inference.Plain`): fp32, contiguous, dense upsampling, argmax over the whole
map. Two floors are the network's arithmetic, with the whole ring of padding, and without what
batches that keep the device busy take of it from maps of zeros, by what a product of matrices
reaches on the device. Passes follow each other at once; only the single image on the host is
waited for. With a checkpoint, masks of the images in a folder are compared with those of the plain
one, pixel by pixel, in float32 without TF32, as ours has it there.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.inference import Plain, untrained
from benchmarks.machine import describe
from fcn_model import FCN, NetworkSpec, Segmenter, checkpoint
from fcn_model.extents import Extents
from fcn_model.kept import Kept
from fcn_model.replays import SEEN, Replays
from fcn_model.ring import features
from fcn_model.spec import BackboneName

BACKBONES: tuple[BackboneName, ...] = ("vgg16", "alexnet", "googlenet")
SIDE = 8192
"""Of the matrices whose product says what the device reaches."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to time."""

    height: int = 500
    """Of the images, in pixels."""
    width: int = 500
    """Of the images, in pixels."""
    batches: tuple[int, ...] = (1, 4, 8, 16, 32)
    """Images in a pass."""
    repeats: int = 10
    """Passes that are timed together, three times."""
    checkpoint: Path | None = None
    """A trained FCN-8s VGG16 for the comparison of masks."""
    images: Path | None = None
    """A folder of JPEG or PNG files for the comparison."""


def main() -> None:
    """Print the table."""
    options = tyro.cli(Options, description=__doc__)
    if not torch.cuda.is_available():
        raise SystemExit(
            "error: there is no GPU here; `python -m benchmarks.inference` is for CPUs"
        )
    if (options.checkpoint is None) != (options.images is None):
        raise SystemExit("error: --checkpoint and --images are given together or not at all")
    print(f"{torch.cuda.get_device_name()}, {describe()}")
    peak = _peak()
    print(f"product of {SIDE} x {SIDE} matrices in bfloat16: {peak / 1e12:.0f} TFLOP/s")
    if options.checkpoint is not None and options.images is not None:
        _compare(options.checkpoint, options.images)
        return
    for backbone in BACKBONES:
        _time(backbone, options, peak)


def _time(backbone: BackboneName, options: Options, peak: float) -> None:
    spec = NetworkSpec(num_classes=21, backbone=backbone)
    network, config = untrained(spec)
    size = options.height, options.width
    work = {
        f"÷ floor {name}": arithmetic(spec, size, ring=ring)
        for name, ring in (("with ring", True), ("without", False))
    }
    whole, left = (operations / 1e9 for operations in work.values())
    print(
        f"\n{spec.name}, {options.width} x {options.height}: {whole:.0f} GFLOP an image, "
        f"{left:.0f} of them without the ring"
    )
    plain = None
    if backbone == "vgg16":
        plain = _best(
            options,
            "plain, fp32",
            lambda count: _plain(Plain(network, config, device="cuda"), count, size),
            work,
            peak,
        )
    segmenter = Segmenter(network, config, device="cuda", precision="bf16")
    ours = _best(options, "ours, bf16", lambda count: _ours(segmenter, count, size), work, peak)
    if plain:
        print(f"ours ÷ plain, images/s: {ours / plain:.1f}")
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    seconds = _seconds(lambda: segmenter(image), options.repeats)
    print(f"one image, from pixels to mask on the host: {1e3 * seconds:.2f} ms")


def _best(
    options: Options,
    name: str,
    passes: Callable[[int], Callable[[], Tensor]],
    work: Mapping[str, float],
    peak: float,
) -> float:
    """Images a second of the best batch, after a line for each."""
    rates = []
    for count in options.batches:
        seconds = _seconds(passes(count), options.repeats)
        rates.append(count / seconds)
        print(
            f"{name}, batch {count:2}: {rates[-1]:7.1f} images/s, {1e3 * seconds:7.2f} ms a pass, "
            + ", ".join(
                f"{name} {seconds / count * peak / each:.2f}" for name, each in work.items()
            ),
            flush=True,
        )
    return max(rates)


def _ours(segmenter: Segmenter, count: int, size: tuple[int, int]) -> Callable[[], Tensor]:
    images = torch.randn(count, 3, *size, device="cuda", dtype=torch.bfloat16)
    images = images.contiguous(memory_format=torch.channels_last)
    classes = Replays(segmenter.classes)

    def run() -> Tensor:
        return classes(images).ids_NHW

    return run


def _plain(plain: Plain, count: int, size: tuple[int, int]) -> Callable[[], Tensor]:
    images = torch.randn(count, 3, *size, device="cuda")

    @torch.inference_mode()
    def run() -> Tensor:
        return plain.network(images).argmax(1).to(torch.uint8)

    return run


def _seconds(work: Callable[[], object], repeats: int) -> float:
    """The median of three."""
    for _ in range(SEEN + 2):
        work()
    times = []
    for _ in range(3):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - started) / repeats)
    return statistics.median(times)


def _peak() -> float:
    """Operations a second of a product of matrices."""
    first, second = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in "ab")
    return 2 * SIDE**3 / _seconds(lambda: first @ second, 10)


@torch.no_grad()
def arithmetic(spec: NetworkSpec, size: tuple[int, int], *, ring: bool) -> float:
    """Operations for one image, up to the top of the trunk: all but a thousandth.

    With the ``ring`` of padding, or without what maps of zeros give of it.
    """
    with torch.device("meta"):
        network = FCN(spec).eval()
        images = torch.empty(1, 3, *size)
    kept, total = Kept(), 0
    for trunk, layers, part in network.streams(images):
        run = trunk.run if ring else partial(features, trunk, kept=kept.zeros)
        if not ring:
            run(layers, part, Extents(None))  # makes the maps of zeros
        with FlopCounterMode(display=False) as counter:
            run(layers, part, Extents(None))
        total += counter.get_total_flops()
    return float(total)


def _compare(trained: Path, folder: Path) -> None:
    network, config = checkpoint.load(trained)
    plain = Plain(network, config, device="cuda")
    kinds = {
        precision: Segmenter(network, config, device="cuda", precision=precision)
        for precision in ("bf16", "fp32")
    }
    equal: dict[str, list[float]] = {name: [] for name in kinds}
    for file in sorted(folder.iterdir()):
        pixels = np.asarray(Image.open(file).convert("RGB"))
        expected = plain(pixels)
        for name, segmenter in kinds.items():
            equal[name].append(100 * float((segmenter(pixels) == expected).mean()))
    for name, shares in equal.items():
        print(
            f"{len(shares)} images of {folder}: {statistics.mean(shares):.4f} % of pixels "
            f"equal to the plain one's, {name} (worst image {min(shares):.4f} %)"
        )


if __name__ == "__main__":
    main()
