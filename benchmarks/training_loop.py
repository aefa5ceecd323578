"""A plain training loop on tensors in memory; prints images per second. Run by `training`."""

from __future__ import annotations

import sys
import time

import torch
import torch.nn.functional as F  # noqa: N812

from fcn_model import NetworkSpec, build
from fcn_model.precision import training_format
from pipelines.datasets.scenes import CLASSES

SECONDS = 10.0
WARM_UP = 3


def main() -> None:
    """Steps of forward, backward and AdamW for some seconds."""
    batch, side, width, fc_width = int(sys.argv[1]), int(sys.argv[2]), *map(float, sys.argv[3:5])
    spec = NetworkSpec(num_classes=len(CLASSES), width=width, fc_width=int(fc_width))
    memory_format = training_format(torch.device("cpu"), "fp32")
    network = build(spec).to(memory_format=memory_format).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    images = torch.randn(batch, 3, side, side).to(memory_format=memory_format)
    labels = torch.randint(0, len(CLASSES), (batch, side, side))
    steps, started = -WARM_UP, time.perf_counter()
    while steps <= 0 or time.perf_counter() - started < SECONDS:
        if steps == 0:
            started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        steps += 1
    print(steps * batch / (time.perf_counter() - started))


if __name__ == "__main__":
    main()
