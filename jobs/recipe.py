"""What a recipe is, and the two ways of learning that the papers have."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from pipelines.train_settings import Network, Solver


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """What a recipe is trained and scored on; ``tasks`` are the classes of each task."""

    train: str
    images: int
    val: str
    tasks: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One way to train one net. ``expected`` is what it should reach, and where that stands."""

    data: DataSet
    network: Network
    start: str
    solver: Solver
    expected: str
    source: str

    def describe(self) -> str:
        """A few lines for a terminal."""
        data, network, solver = self.data, self.network, self.solver
        classes = " + ".join(str(count) for _, count in data.tasks)
        momentum = f", momentum {solver.momentum:g}" if solver.optimizer == "sgd" else ""
        images = solver.batch_size * solver.iter_size
        lines = {
            "net": f"{network.head} on {network.backbone}, {network.inputs}, {classes} classes",
            "train": f"{data.train}: {data.images:,} images",
            "val": data.val,
            "start": self.start,
            "solver": (
                f"{solver.optimizer}, lr {solver.lr:g}{momentum}, decay {solver.weight_decay:g}, "
                f"loss {solver.loss}, {images} image{'s' * (images > 1)} a step, "
                f"{solver.epochs} epochs"
            ),
            "expected": f"mean IU {self.expected}",
            "source": self.source,
        }
        return "\n".join(f"  {name:9} {text}" for name, text in lines.items())


def epochs_of(iterations: int, data: DataSet, images_per_step: int = 1) -> int:
    """The whole passes over the data that are nearest to so many of the reference's iterations."""
    return max(1, round(iterations * images_per_step / data.images))


def heavy(lr: float, iterations: int, data: DataSet) -> Solver:
    """Heavy learning: one image a step, momentum .99, the loss summed over pixels."""
    return Solver(
        epochs=epochs_of(iterations, data),
        images_per_step=1,
        lr=lr,
        momentum=0.99,
        weight_decay=5e-4,
        loss="sum",
        mirror=False,
        precision="fp32",
    )


def accumulated(lr: float, epochs: int) -> Solver:
    """Accumulation: the mean of 20 images' mean losses a step, momentum .9."""
    return Solver(
        epochs=epochs,
        iter_size=20,
        images_per_step=20,
        lr=lr,
        momentum=0.9,
        weight_decay=5e-4,
        loss="image-mean",
        mirror=False,
        precision="fp32",
    )


def finer(coarser: Recipe, name: str, head: Literal["fcn16s", "fcn8s"], lr: float) -> Recipe:
    """The next stage: a finer head on the weights of the coarser net, whose run is ``name``."""
    return replace(
        coarser,
        network=replace(coarser.network, head=head),
        start=f"the best checkpoint of {name}: --init STORAGE/{name}/best",
        solver=replace(coarser.solver, lr=lr),
    )
