"""The living state of one worker's training, and what workers do together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from fcn_model import FCN, ModelConfig
from fcn_model.precision import has_bf16, training_format
from pipelines.progress import Relay
from pipelines.train_settings import Solver


def precision_of(solver: Solver, device: torch.device) -> str:
    """fp32 or bf16, as the solver asks for or the device decides."""
    if solver.precision == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    return solver.precision


@dataclass
class Run:
    """One worker's share of a training run."""

    solver: Solver
    network: FCN
    model: torch.nn.Module  # the network, wrapped for data-parallel training where it needs to be
    config: ModelConfig
    optimizer: torch.optim.Optimizer
    device: torch.device
    rank: int
    world: int
    records: int | None  # images in an epoch, if known
    shuffle_buffer: int
    relay: Relay  # to the driver
    class_weights: tuple[torch.Tensor | None, ...]  # of each task, on the device
    epoch: int = 0  # epochs finished
    images: int = 0  # images seen by all workers in all epochs
    history: list[dict[str, Any]] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Show a line on the driver, once for all workers."""
        if self.rank == 0:
            self.relay.say(text)

    @property
    def precision(self) -> str:
        """fp32 or bf16, as the solver asks for or the device decides."""
        return precision_of(self.solver, self.device)

    @property
    def memory_format(self) -> torch.memory_format:
        """That of the network and of the images of a training step."""
        return training_format(self.device, self.precision)

    def autocast(self) -> torch.autocast:
        """The context of forward passes in this precision."""
        enabled = self.precision == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def sum_over_workers(self, values: torch.Tensor) -> torch.Tensor:
        """The element-wise sum of every worker's ``values``, exact for integers."""
        if self.world == 1:
            return values
        summed = values.to(self.device)
        dist.all_reduce(summed)
        return summed.cpu()

    def agreed(self, mine: bool) -> bool:
        """Whether every worker says so."""
        return int(self.sum_over_workers(torch.tensor(int(mine)))) == self.world
