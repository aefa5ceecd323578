"""One training step in both memory formats, in one run, as a ratio.

python -m benchmarks.train_step --width 1 --height 180 --image-width 240
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Literal

import torch
import tyro

from benchmarks.machine import describe
from fcn_model import FCN
from fcn_model.precision import has_bf16
from fcn_model.spec import NetworkSpec

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Time forward and backward of FCN-8s (VGG16) on this machine's CPU."""

    width: float = 1.0
    """Of the network; 1 is the paper's."""
    fc_width: int = 1024
    """Channels of fc6 and fc7."""
    height: int = 180
    """Of the image, in pixels."""
    image_width: int = 240
    """Of the image, in pixels."""
    batch: int = 1
    """Images a step."""
    repeats: int = 3
    """Timed steps of each kind, after one that is not timed."""


def main() -> None:
    """Run the benchmark that the command line describes."""
    options = tyro.cli(Options, description=__doc__)
    print(describe())
    device = torch.device("cpu")
    precisions: list[Literal["fp32", "bf16"]] = ["fp32", "bf16"] if has_bf16(device) else ["fp32"]
    for precision in precisions:
        seconds: dict[str, list[float]] = {name: [] for name in FORMATS}
        steps = {name: _step(options, precision, format_) for name, format_ in FORMATS.items()}
        for repeat in range(options.repeats + 1):
            for name, step in steps.items():  # in turn, so that other work slows both
                started = time.perf_counter()
                step()
                if repeat:
                    seconds[name].append(time.perf_counter() - started)
        medians = {name: statistics.median(times) for name, times in seconds.items()}
        for name, times in seconds.items():
            spread = f"{min(times):.2f} to {max(times):.2f}"
            print(f"{precision} {name:13} {medians[name]:7.2f} s a step ({spread})")
        ratio = medians["channels_last"] / medians["contiguous"]
        print(f"{precision} channels_last ÷ contiguous: {ratio:.2f}")


def _step(options: Options, precision: str, memory_format: torch.memory_format):  # type: ignore[no-untyped-def]
    spec = NetworkSpec(num_classes=11, width=options.width, fc_width=options.fc_width)
    network = FCN(spec).to(memory_format=memory_format).train()
    shape = (options.batch, 3, options.height, options.image_width)
    images = torch.randn(shape).to(memory_format=memory_format)
    labels = torch.randint(0, 11, (options.batch, options.height, options.image_width))

    def step() -> None:
        network.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            scores = network(images)
        torch.nn.functional.cross_entropy(scores, labels).backward()  # type: ignore[no-untyped-call]

    return step


if __name__ == "__main__":
    main()
