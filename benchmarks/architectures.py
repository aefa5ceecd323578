"""Receptive fields, strides, crops and parameters of every net, beside the published figures.

    python -m benchmarks.architectures

All figures are computed: geometry from the layers, parameters on torch's meta device, which
allocates nothing. The command fails where a published figure is not met.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import get_args

import torch

from benchmarks import machine
from fcn_model import FCN, NetworkSpec
from fcn_model.backbones import backbone as trunk_of
from fcn_model.backbones import classifier_trunk
from fcn_model.backbones.steps import Convolve, Inception, Step, make_layers
from fcn_model.backbones.trunk import Trunk
from fcn_model.geometry import receptive_field, stride
from fcn_model.heads import SkipHead
from fcn_model.spec import AT_ONCE_SCALES, BackboneName, Head, Stream, Task

PAPER: dict[BackboneName, tuple[int, int, int, int]] = {
    "vgg16": (404, 32, 16, 134),
    "caffenet": (355, 32, 8, 57),
    "googlenet": (907, 32, 22, 6),
}
"""Receptive field, largest stride, layers with weights, millions of parameters (table 1)."""

GOOGLENET_TRUNK = 5_973_552
"""Parameters of BVLC's convolutions without the auxiliary classifiers."""

COUNTS = {
    NetworkSpec(num_classes=21, head="fcn32s"): 134_346_581,
    NetworkSpec(num_classes=21, head="fcn16s"): 134_357_354,
    NetworkSpec(num_classes=21, head="fcn8s"): 134_362_751,
    NetworkSpec(num_classes=40, head="fcn32s"): 134_424_424,
    NetworkSpec(num_classes=21, head="fcn32s", backbone="caffenet"): 56_954_261,
    NetworkSpec(num_classes=21, head="fcn32s", backbone="googlenet"): 5_995_077,
}
"""Parameters without the fixed upsampling, counted in the released net definitions (GoogLeNet: in
BVLC's, with a score layer)."""

VARIATIONS = (
    NetworkSpec(num_classes=21, skip_scales=AT_ONCE_SCALES),
    NetworkSpec(num_classes=21, upsampling="learned"),
    NetworkSpec(num_classes=40, head="fcn32s"),
    NetworkSpec(num_classes=40, head="fcn32s", streams=(Stream("", 4),)),
    NetworkSpec(num_classes=40, head="fcn32s", streams=(Stream("color", 3), Stream("hha", 3))),
    NetworkSpec(num_classes=33, more_tasks=(Task("geo", 3),)),
    NetworkSpec(num_classes=60),
)
"""The other nets of the reference: VOC, NYUDv2, SIFT Flow, PASCAL-Context."""


def main() -> None:
    """Print both tables; exit with 1 if a published figure is not met."""
    print(machine.describe())
    met = [*backbones(), *networks()]
    if not all(met):
        sys.exit("a published figure is not met")


def backbones() -> Iterable[bool]:
    """Print the trunks beside table 1; yields whether the published figures are met."""
    print("\nof the trunk and a 21-class FCN-32s on it; (in brackets: table 1)\n")
    print(
        f"{'':14}{'receptive field':>18}{'stride':>12}{'layers':>12}{'millions':>14}{'trunk':>14}"
    )
    for name in get_args(BackboneName):
        spec = NetworkSpec(num_classes=21, head="fcn32s", backbone=name)
        trunk = trunk_of(spec)
        path = trunk.path(trunk.top)
        ours = (seen_by(name), stride(path), depth(trunk.steps), round(parameters(spec) / 1e6))
        paper = PAPER.get(name)
        published = [f"({value})" for value in paper] if paper else [""] * len(ours)
        columns = [
            f"{value:{width}}{beside:>6}"
            for value, beside, width in zip(ours, published, (12, 6, 6, 8), strict=True)
        ]
        count = trunk_parameters(trunk)
        note = f"   receptive field {receptive_field(path)} without pool5"
        tail = note if "googlenet" in name else ""
        print(f"{name:14}{''.join(columns)}{count:14,}{tail}")
        yield paper is None or ours == paper
        yield name != "googlenet" or count == GOOGLENET_TRUNK


def networks() -> Iterable[bool]:
    """Print the table of the networks; yields whether the published counts are met."""
    print(f"\n{'network':48}{'classes':>8}   {'crops':12}{'parameters':>13}{'published':>13}")
    plain = [
        NetworkSpec(num_classes=21, head=head, backbone=name)
        for name in get_args(BackboneName)
        for head in get_args(Head)
    ]
    for spec in (*plain, *VARIATIONS):
        count = parameters(spec)
        published = f"{COUNTS[spec]:,}" if spec in COUNTS else ""
        classes = "+".join(str(task.num_classes) for task in spec.tasks)
        print(f"{spec.name:48}{classes:>8}   {crops(spec):12}{count:13,}{published:>13}")
        if spec in COUNTS:
            yield count == COUNTS[spec]


def seen_by(name: BackboneName) -> int:
    """The receptive field of the classifier's last map: GoogLeNet's with its final average pool.

    The paper's 907 is with the pool, although its text drops it (section 4.1).
    """
    trunk = classifier_trunk(NetworkSpec(num_classes=21, backbone=name))
    return receptive_field(trunk.path(trunk.top))


def depth(steps: Iterable[Step]) -> int:
    """Layers with weights on the longest way from the image to the scores, with score_fr."""
    return 1 + sum(_depth(step) for step in steps)


def _depth(step: Step) -> int:
    if isinstance(step, Inception):
        return max(depth(branch) - 1 for branch in step.branches)
    return int(isinstance(step, Convolve))


def trunk_parameters(trunk: Trunk) -> int:
    """Weights and biases up to the features that score_fr sees."""
    with torch.device("meta"):
        layers = make_layers(trunk.steps).values()
    return sum(parameter.numel() for layer in layers for parameter in layer.parameters())


def parameters(spec: NetworkSpec) -> int:
    """Weights and biases of the whole network."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in FCN(spec).parameters())


def crops(spec: NetworkSpec) -> str:
    """Where the enlarged scores begin in each skip's (− if the skip's begin later), then the image
    in the last enlargement.
    """
    head = SkipHead(spec, trunk_of(spec), spec.tasks[0])
    offsets = [fusion.offset - fusion.trim for fusion in head.fusions]
    return ", ".join(str(offset).replace("-", "−") for offset in (*offsets, head.final_offset))


if __name__ == "__main__":
    main()
