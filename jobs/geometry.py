"""Job: the geometry of a network, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from fcn_model.spec import BackboneName, Head, NetworkSpec, Task
from jobs.recipes import RECIPES, RecipeName
from jobs.runtime import run_job, say
from pipelines.errors import InputError

SIZE = (500, 375)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Print every layer of a network with what it makes of an image and what it sees.

    Kernel, stride, padding, output size, receptive field, cumulative stride and offset; then the
    crops of the skips and of the scores, and the number of parameters. Nothing is stored: all of it
    is composed from the layers.
    """

    backbone: BackboneName = "vgg16"
    """caffenet is the paper's AlexNet and googlenet BVLC's; alexnet and googlenet_bn are
    torchvision's."""
    head: Head | Literal["classifier"] = "fcn8s"
    """classifier is the backbone as it was trained on ImageNet: its own padding, and GoogLeNet with
    its average pool."""
    size: tuple[int, int] = SIZE
    """Height and width of the image in pixels."""
    num_classes: int = 21
    """Classes of the scores; 21 in PASCAL VOC."""
    recipe: RecipeName | None = None
    """The net of a recipe, in the place of backbone, head and num_classes."""
    checkpoint: str | None = None
    """The net of a checkpoint directory, by path or URI, in their place."""


def work(options: Geometry) -> None:
    """Run the job."""
    from fcn_model.geometry_table import (  # noqa: PLC0415  (imports torch)
        classifier_table,
        network_table,
    )

    named = _named_spec(options)
    if named is not None:
        table = network_table(named, options.size)
    elif options.head == "classifier":
        spec = NetworkSpec(num_classes=options.num_classes, backbone=options.backbone)
        table = classifier_table(spec, options.size)
    else:
        spec = NetworkSpec(
            num_classes=options.num_classes, backbone=options.backbone, head=options.head
        )
        table = network_table(spec, options.size)
    say(table.to_text())


def _named_spec(options: Geometry) -> NetworkSpec | None:
    """The net of a recipe or checkpoint, if one is named."""
    given = [value for value in (options.recipe, options.checkpoint) if value is not None]
    if not given:
        return None
    if len(given) > 1 or replace(options, recipe=None, checkpoint=None, size=SIZE) != Geometry():
        raise InputError(
            f"{given[0]} names the whole net: leave out --backbone, --head, --num-classes and "
            "all but one of --recipe and --checkpoint"
        )
    if options.recipe is not None:
        network, tasks = RECIPES[options.recipe].network, RECIPES[options.recipe].data.tasks
        return network.spec(tasks[0][1], tuple(Task(*task) for task in tasks[1:]))
    from pipelines import checkpoints  # noqa: PLC0415  (imports torch)

    return checkpoints.load(given[0])[1].spec


def main() -> None:
    """Run the command line."""
    run_job(Geometry, work)


if __name__ == "__main__":
    main()
