"""From a published weights file to a network: what the file is follows from names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from fcn_model.backbones import backbone
from fcn_model.errors import WeightsError
from fcn_model.heads import SkipHead
from fcn_model.network import FCN, build
from fcn_model.published import by_our_names, tensors_of, tidy
from fcn_model.spec import (
    FIRST_TASK,
    SKIPS,
    BackboneName,
    Head,
    NetworkSpec,
    Stream,
    Task,
    Upsampling,
)
from fcn_model.surgery import SCORE, fill, fill_wholly, is_bilinear, task_of
from fcn_model.weights import WeightsFile

Origin = Literal["caffe", "torchvision"]
"""Whose input a file expects. pytorch-fcn's is Caffe's."""

_FIRST_LAYERS = r"(?:conv1_1|conv1/7x7_s2|conv1)"

_OTHER_NETS = {
    "AlexNet": "normalizes before it pools; of the two that look alike, only CaffeNet, which pools "
    "first, is a backbone here"
}
"""Nets of Caffe's that cannot be told by their tensors from one that is known here."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a file holds: the layers of ``spec`` by our names.

    ``scored`` is false for an ImageNet classifier, of which head and classes of ``spec`` mean
    nothing.
    """

    origin: Origin
    spec: NetworkSpec
    tensors: Mapping[str, Tensor]
    scored: bool


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """A network, whose input its weights expect, and the layers that the file did not give."""

    network: FCN
    origin: Origin
    fresh: tuple[str, ...]


def convert(
    file: WeightsFile,
    *,
    head: Head | None = None,
    num_classes: int | None = None,
    fc_width: int | None = None,
    skip_scales: tuple[float, float] | None = None,
) -> Conversion:
    """The network in a file, or on a classifier's layers one with fresh zero scores.

    What the file says need not be given; where it is, it must agree. ``head`` and ``num_classes``
    are needed for a classifier; ``fc_width`` is that of fresh fc6 and fc7 for one without them.
    ``skip_scales`` cannot be seen in pytorch-fcn's at-once weights.
    Raises WeightsError for a file that is not known, does not fit, or contradicts what is given,
    SpecError for a network that cannot be.
    """
    identity = identify(file)
    if identity.scored:
        spec = _agreed(identity.spec, head=head, num_classes=num_classes, fc_width=fc_width)
        scales = _agreed_scales(identity, skip_scales)
        network = build(replace(spec, skip_scales=scales))
        filled = fill_wholly(identity.tensors, network)
    else:
        if head is None or num_classes is None:
            raise WeightsError(
                "the weights are of a classifier, so that head and classes of the network must be "
                f"given; head is {head}, the number of classes {num_classes}"
            )
        wanted: dict[str, Any] = {"head": head, "num_classes": num_classes}
        if fc_width is not None:
            wanted["fc_width"] = fc_width
        network = build(replace(identity.spec, skip_scales=skip_scales or (1.0, 1.0), **wanted))
        filled = fill(identity.tensors, network)
    given = {name.rpartition(".")[0] for name in filled}
    layers = dict.fromkeys(name.rpartition(".")[0] for name, _ in network.named_parameters())
    fresh = tuple(layer for layer in layers if layer not in given)
    return Conversion(network=network, origin=identity.origin, fresh=fresh)


def identify(file: WeightsFile) -> Identity:
    """What ``file`` holds. Raises WeightsError if it is none of the nets that are known here."""
    tensors = tidy(tensors_of(file))
    name, origin = _backbone(tensors)
    if name == "caffenet" and file.net in _OTHER_NETS:
        raise WeightsError(f"the net is {file.net}, which {_OTHER_NETS[file.net]}")
    trunk = backbone(NetworkSpec(num_classes=1, backbone=name))
    ours = by_our_names(tensors, trunk)
    first = trunk.steps[0]
    streams = _streams(ours, first.name)
    if not streams:
        raise WeightsError(f"the file looks like {name}, but has no convolution {first.name}")
    weight = ours[f"{first.name}{streams[0].name}.weight"]
    wide: dict[str, Any] = {"backbone": name, "width": len(weight) / first.channels}
    fc6 = ours.get(f"fc6{streams[0].name}.bias")
    if fc6 is not None:
        wide["fc_width"] = fc6.numel()
    tasks = _tasks(ours, streams)
    if not tasks:
        return Identity(
            origin=origin, spec=NetworkSpec(num_classes=1, **wide), tensors=ours, scored=False
        )
    scores = {match[1] for layer in ours if (match := SCORE.match(layer))}
    finest = max((i for i, skip in enumerate(trunk.skips, 1) if skip in scores), default=0)
    spec = NetworkSpec(
        num_classes=tasks[0].num_classes,
        head=next(head for head, skips in SKIPS.items() if skips == finest),
        more_tasks=tasks[1:],
        streams=streams,
        **wide,
    )
    spec = replace(spec, upsampling=_upsampling(ours, spec))
    return Identity(origin=origin, spec=spec, tensors=ours, scored=True)


def _backbone(tensors: Mapping[str, Tensor]) -> tuple[BackboneName, Origin]:
    """The backbone by the names of its layers and the kernels of a few, and whose it is."""
    kernels = {
        name.removesuffix(".weight"): tuple(value.shape)
        for name, value in tensors.items()
        if name.endswith(".weight") and value.ndim == 4
    }
    if "features.0" in kernels:
        return ("alexnet" if kernels["features.0"][2] == 11 else "vgg16"), "torchvision"
    if "inception3a.branch1" in kernels:
        return "googlenet_bn", "torchvision"
    for layer, shape in kernels.items():
        match = re.fullmatch(rf"({_FIRST_LAYERS})([a-z]*)", layer)
        if match is None:
            continue
        if match[1] == "conv1_1":
            return "vgg16", "caffe"
        if match[1] == "conv1":
            second = kernels.get(f"conv2{match[2]}", shape)
            return ("alexnet", "torchvision") if second[1] == shape[0] else ("caffenet", "caffe")
        wide = kernels.get(f"inception_3a/5x5{match[2]}", shape)
        return ("googlenet_bn", "torchvision") if wide[2] == 3 else ("googlenet", "caffe")
    raise WeightsError(
        "the file is none of VGG16, CaffeNet, AlexNet and GoogLeNet by the names of its tensors "
        f"({', '.join(sorted(tensors)[:6])}, ...): wanted are convolutions called features.0 or "
        "conv1.conv (torchvision), conv1_1, conv1 or conv1/7x7_s2 (Caffe, pytorch-fcn)"
    )


def _streams(ours: Mapping[str, Tensor], first: str) -> tuple[Stream, ...]:
    pattern = re.compile(rf"{re.escape(first)}([a-z]*)\.weight")
    return tuple(
        Stream(match[1], value.shape[1])
        for name, value in ours.items()
        if value.ndim == 4 and (match := pattern.fullmatch(name))
    )


def _tasks(ours: Mapping[str, Tensor], streams: tuple[Stream, ...]) -> tuple[Task, ...]:
    """The tasks that the file scores, the first one first; none for a classifier."""
    counts: dict[str, int] = {}
    for name, value in ours.items():
        task = task_of(name.removesuffix(".bias"), [stream.name for stream in streams])
        if task is not None and name.startswith("score_fr") and value.ndim == 1:
            counts.setdefault(task, len(value))
    if len(counts) > 1 and FIRST_TASK not in counts:
        raise WeightsError(f"of several tasks one is called {FIRST_TASK!r}, got {sorted(counts)}")
    tasks = [Task(name, count) for name, count in counts.items()]
    return tuple(sorted(tasks, key=lambda task: task.name != FIRST_TASK))


def _upsampling(ours: Mapping[str, Tensor], spec: NetworkSpec) -> Upsampling:
    """Fixed if the file has no kernel, or all and bilinear ones; else what must have been learned.

    A file that lacks some of its kernels counts as learned, so that they will be missed.
    """
    heads = [SkipHead(spec, backbone(spec), task) for task in spec.tasks]
    last = [f"{head.final_upsample}.weight" for head in heads]
    other = [f"{fusion.upsample}.weight" for head in heads for fusion in head.fusions]
    given = [name for name in (*last, *other) if name in ours]
    if not given:
        return "fixed"
    if len(given) < len(last) + len(other) or not all(is_bilinear(ours[name]) for name in last):
        return "learned"
    return "fixed" if all(is_bilinear(ours[name]) for name in other) else "intermediate"


def _agreed(spec: NetworkSpec, **asked: object) -> NetworkSpec:
    for field, value in asked.items():
        found = getattr(spec, field)
        if value is not None and value != found:
            raise WeightsError(f"{field} was given as {value}, but the file has {found}")
    return spec


def _agreed_scales(identity: Identity, asked: tuple[float, float] | None) -> tuple[float, float]:
    """The factors before the skips' scores as the file has them, or as they are given."""
    layers = [
        identity.tensors.get(f"scale_{skip}.weight") for skip in backbone(identity.spec).skips
    ]
    found: tuple[float, float] | None = None
    if any(layer is not None for layer in layers):
        # Six digits: 0.01 went through single precision.
        pool4, pool3 = (
            float(f"{layer.flatten()[0]:.6g}") if layer is not None and layer.numel() else 1.0
            for layer in layers
        )
        found = (pool4, pool3)
    if asked is not None and found is not None and asked != found:
        raise WeightsError(f"the skip scales were given as {asked}, but the file has {found}")
    return found or asked or (1.0, 1.0)
