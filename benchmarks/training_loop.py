"""A plain training loop on tensors in memory; prints images per second. Run by `training`.

Under ``torch.distributed.run`` it is one with DistributedDataParallel, whose processes share the
batch and the cores.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812
from torch.nn.parallel import DistributedDataParallel

from fcn_model import NetworkSpec, build
from fcn_model.precision import training_format
from pipelines.cluster import threads_each
from pipelines.datasets.scenes import CLASSES

SECONDS, STEPS = 6.0, 8
"""A loop takes so long, and does so many steps, at least."""
WARM_UP = 3
OPTIMIZERS: dict[str, Callable[[Iterator[torch.nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": partial(torch.optim.SGD, lr=1e-4, momentum=0.99, weight_decay=5e-4, fused=True),
    "adamw": partial(torch.optim.AdamW, lr=1e-4, fused=True),
}


def main() -> None:
    """Steps of forward, backward and optimizer for some seconds."""
    batch, side, width, fc_width = int(sys.argv[1]), int(sys.argv[2]), *map(float, sys.argv[3:5])
    workers = int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(threads_each(workers))
    spec = NetworkSpec(num_classes=len(CLASSES), width=width, fc_width=int(fc_width))
    device, precision = torch.device("cuda" if torch.cuda.is_available() else "cpu"), sys.argv[6]
    memory_format = training_format(device, precision)
    halves = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
    network: torch.nn.Module = build(spec).to(device).to(memory_format=memory_format).train()
    if workers > 1:
        assert device.type == "cpu", "one GPU is not shared"
        dist.init_process_group("gloo")
        network = DistributedDataParallel(network)
    optimizer = OPTIMIZERS[sys.argv[5]](network.parameters())
    images = torch.randn(batch // workers, 3, side, side).to(device, memory_format=memory_format)
    labels = torch.randint(0, len(CLASSES), (batch // workers, side, side), device=device)

    def seconds(steps: int) -> float:
        started = time.perf_counter()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with halves:
                scores = network(images)
            F.cross_entropy(scores, labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    seconds(WARM_UP)
    steps = torch.tensor(max(STEPS, SECONDS / (seconds(WARM_UP) / WARM_UP))).int()
    if workers > 1:
        dist.broadcast(steps, 0)
    rate = int(steps) * batch / seconds(int(steps))
    if os.environ.get("RANK", "0") == "0":
        print(rate)
    if workers > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
