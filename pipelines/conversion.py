"""A published weights file as a checkpoint directory, with its classes and what its input is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fcn_model import FCN, ClassList, ModelConfig, Normalization, checkpoint
from fcn_model.convert import Conversion, convert
from fcn_model.errors import WeightsError
from fcn_model.model_config import CONFIG_FILE
from fcn_model.spec import FIRST_TASK, Head
from pipelines import checkpoints, storage
from pipelines.datasets import camvid, nyud, scenes, siftflow, voc
from pipelines.errors import InputError
from pipelines.normalizations import NORMALIZATIONS, PLANES, NormalizationName, torchvisions

Tasks = dict[str, ClassList]

CLASS_LISTS: Mapping[str, tuple[ClassList, Tasks]] = {
    "voc": (voc.CLASSES, {}),
    "camvid": (camvid.CLASSES, {}),
    "nyud": (nyud.CLASSES, {}),
    "siftflow": (siftflow.CLASSES, {siftflow.GEO: siftflow.GEO_CLASSES}),
    "scenes": (scenes.CLASSES, {}),
}
"""The classes of a data set by its name, and those of its further labels."""

STREAM_PLANES: Mapping[tuple[tuple[str, int], ...], tuple[tuple[str, Normalization], ...]] = {
    (("", 3),): (),
    (("", 4),): (("depth", PLANES["depth"]),),
    (("color", 3), ("hha", 3)): (("hha", PLANES["hha"]),),
}
"""What the streams of the reference's nets see beside the image."""

SIFT_FLOW_TASKS = (
    (FIRST_TASK, len(siftflow.CLASSES)),
    (siftflow.GEO, len(siftflow.GEO_CLASSES)),
)
"""What the reference's siftflow nets score, and no other net of its."""


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What a weights file cannot say, or only in part; what it does say must agree."""

    head: Head | None = None
    """Head of the network; needed for an ImageNet classifier, whose scores start at zero."""
    num_classes: int | None = None
    """Number of classes; needed for an ImageNet classifier unless classes says it."""
    classes: str | None = None
    """What the classes are: voc, camvid, nyud, siftflow, scenes, or a classes.json by path or URI.
    By default VOC's for 21, otherwise numbers."""
    fc_width: int | None = None
    """Channels of fresh fc6 and fc7, where a classifier's file has only its convolutions."""
    skip_scales: tuple[float, float] | None = None
    """Factors before the scores of the two skips, coarse to fine: 0.01 0.0001 for at-once weights
    of pytorch-fcn without its trainer's notes."""
    normalization: Literal["auto", NormalizationName] = "auto"
    """What the input is. auto: RGB as torchvision has it for its names; for those of Caffe and
    pytorch-fcn BGR minus a mean: that of nyud or siftflow if classes is that name, or the net's
    input or tasks are theirs, else ImageNet's (caffe). nyud-hha: HHA in the image's place."""


def convert_to(weights: str, output: str, declared: Declared) -> tuple[ModelConfig, Conversion]:
    """Convert the file or torchvision enum ``weights`` to a checkpoint directory ``output``.

    Raises WeightsError naming the file, SpecError for a network that cannot be, InputError if
    ``output`` holds another checkpoint, and NotFoundError.
    """
    uri = storage.parse_uri(output)
    if not checkpoints.is_weights(weights):
        known = ", ".join(checkpoints.WEIGHTS_SUFFIXES)
        raise InputError(
            f"{weights} is no weights file: wanted is one that ends in {known}, or the name of a "
            "torchvision weights enum; a checkpoint directory needs no conversion"
        )
    named = class_lists(declared.classes) if declared.classes else None
    count = declared.num_classes or (len(named[0]) if named else None)
    file = checkpoints.read_weights(weights)
    try:
        conversion = convert(
            file,
            head=declared.head,
            num_classes=count,
            fc_width=declared.fc_width,
            skip_scales=declared.skip_scales,
        )
        config = model_config(conversion, named, declared)
    except WeightsError as error:
        raise WeightsError(f"{weights}: {error}") from error
    _refuse_another(uri, conversion.network, config)
    return checkpoints.save(uri, conversion.network, config), conversion


def model_config(
    conversion: Conversion, named: tuple[ClassList, Tasks] | None, declared: Declared
) -> ModelConfig:
    """Classes and normalization of what was converted."""
    spec = conversion.network.spec
    first, tasks = named or (_default_classes(spec.num_classes), {})
    streams = tuple((stream.name, stream.channels) for stream in spec.streams)
    if streams not in STREAM_PLANES:
        raise WeightsError(
            f"what the network's streams {streams} see is not known; known are "
            f"{list(STREAM_PLANES)}"
        )
    normalization = declared.normalization
    if normalization == "auto":
        normalization = _usual(conversion, declared.classes)
    return ModelConfig(
        spec=spec,
        classes=first,
        normalization=NORMALIZATIONS[normalization],
        more_classes=tuple(
            tasks.get(task.name) or _default_classes(task.num_classes) for task in spec.more_tasks
        ),
        planes=STREAM_PLANES[streams],
        image_plane="hha" if normalization == "nyud-hha" else "",
    )


def class_lists(name: str) -> tuple[ClassList, Tasks]:
    """The classes of a data set by its name, or in a classes.json, and of its further labels.

    Raises InputError for an unknown name or a file that is no class list, NotFoundError.
    """
    if name in CLASS_LISTS:
        return CLASS_LISTS[name]
    if not name.endswith(".json"):
        raise InputError(
            f"classes must be one of {', '.join(CLASS_LISTS)}, or a classes.json, got {name!r}"
        )
    uri = storage.parse_uri(name)
    try:
        value = json.loads(storage.read_bytes(uri))
        tasks = dict(value.get("tasks", {})) if isinstance(value, dict) else {}
        return ClassList.from_dict(value), {
            task: ClassList.from_dict(classes) for task, classes in tasks.items()
        }
    except (ValueError, TypeError) as error:  # SpecError and JSON's are ValueErrors
        raise InputError(f"{uri} is no class list: {error}") from error


def _default_classes(count: int) -> ClassList:
    if count == len(voc.CLASSES):
        return voc.CLASSES
    return ClassList(names=tuple(f"class {number}" for number in range(count)))


def _usual(conversion: Conversion, classes: str | None) -> NormalizationName:
    """The input that the weights were trained on, as far as they and the classes tell."""
    spec = conversion.network.spec
    if conversion.origin == "torchvision":
        return torchvisions(spec.backbone)
    if spec.in_channels > 3 or classes == "nyud":
        return "nyud"
    return "siftflow" if classes == "siftflow" or spec.tasks == SIFT_FLOW_TASKS else "caffe"


def _refuse_another(uri: str, network: FCN, config: ModelConfig) -> None:
    """Raise InputError if a checkpoint stands at ``uri`` that is not the one to be written."""
    where = storage.join(uri, CONFIG_FILE)
    if storage.stat(where) is None:
        return
    if storage.read_bytes(where) != checkpoint.to_files(network, config)[CONFIG_FILE]:
        raise InputError(f"{uri} holds another checkpoint; choose another output, or remove it")
