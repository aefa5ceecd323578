"""What a training run starts from: network, classes, input and weights, settled on the driver."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fcn_model import ModelConfig, NetworkSpec, Normalization, build
from fcn_model.spec import Task
from pipelines import checkpoint_files, checkpoints, ingest, storage
from pipelines.errors import InputError, first_sentence
from pipelines.normalizations import NORMALIZATIONS, PLANES, torchvisions
from pipelines.sources import Source
from pipelines.train_settings import START_ANEW, Network, TrainConfig

Progress = Callable[[str], None]

START_FILE = "start.json"
"""Beside ``init``: the options of the command line that it was made by, which it does not show."""


def prepare_start(
    config: TrainConfig, source: Source, run_uri: str, progress: Progress
) -> ModelConfig:
    """Write ``<run>/init`` once: the network with its start weights, classes and normalization.

    Workers load it from there, so that a resumed run never depends on the original file again.
    Returns what it says. Raises InputError if the run exists with another network, other classes or
    another start.
    """
    init_uri = storage.join(run_uri, "init")
    if storage.stat(storage.join(init_uri, checkpoint_files.FILES[0])) is not None:
        _, started = checkpoints.load(init_uri)
        classes, spec = ingest.classes_of(source), network_spec(config, source)
        asked = (spec, classes, tuple(source.tasks.values()), config.network.needs)
        if (started.spec, started.classes, started.more_classes, started.needs) != asked:
            raise InputError(
                f"run {run_uri} was started with another network or other classes "
                f"({started.spec.name}, {len(started.classes)} classes, against "
                f"{spec.name}, {len(classes)}); choose another --name to start anew"
            )
        _require_same_start(run_uri, config.network)
        progress(f"resuming run {run_uri}")
        return started
    wanted = model_config(config, source)
    network = build(wanted.spec, seed=config.solver.seed)
    loaded: list[str] = []
    if (init := _start_weights(config.network)) is not None:
        loaded = checkpoints.start_from(network, init)
    layers = {name.split(".")[0] for name, _ in network.named_parameters()}
    fresh = sorted(layers - {name.split(".")[0] for name in loaded})
    names = init if isinstance(init, str) else " and ".join((init or {}).values())
    given = f"{len(layers) - len(fresh)} of {len(layers)} layers from {names}"
    progress(
        f"{wanted.spec.name}: {sum(p.numel() for p in network.parameters()):,} parameters, "
        + (f"{given}, fresh: {', '.join(fresh) or 'none'}" if loaded else "all layers fresh")
    )
    storage.replace(storage.join(run_uri, START_FILE), json.dumps(_start(config.network)).encode())
    return checkpoints.save(init_uri, network, wanted)


def _start(network: Network) -> dict[str, Any]:
    names = ("init", "init_hha", "normalization")
    return {name: getattr(network, name) for name in names}


def _require_same_start(run_uri: str, asked: Network) -> None:
    """Raise InputError for start weights or a normalization that would not be used.

    Weights need not be named again. So is a file that is damaged.
    """
    uri = storage.join(run_uri, START_FILE)
    if storage.stat(uri) is None:
        return  # a run of before this file was
    wanted, data = _start(asked), storage.read_bytes(uri)
    try:
        kept = json.loads(data)
        began = {name: kept[name] for name in wanted}
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{uri} is damaged ({first_sentence(error)}); {START_ANEW}") from error
    for name, value in wanted.items():
        if value not in (None, began[name]):
            raise InputError(
                f"run {run_uri} was started with {name} {began[name]}, not {value}; choose another "
                f"--name to start anew, or to go on give the same{' or none' * ('init' in name)}"
            )


def model_config(config: TrainConfig, source: Source) -> ModelConfig:
    """The network, classes and normalizations that the run will have."""
    normalization, planes = normalizations(config.network)
    return ModelConfig(
        spec=network_spec(config, source),
        classes=ingest.classes_of(source),
        more_classes=tuple(source.tasks.values()),
        normalization=normalization,
        planes=planes,
        image_plane=config.network.image_plane,
    )


def network_spec(config: TrainConfig, source: Source) -> NetworkSpec:
    """The network that the settings ask for, with a task for each label that the data has."""
    tasks = tuple(Task(name, len(classes)) for name, classes in source.tasks.items())
    return config.network.spec(len(ingest.classes_of(source)), tasks)


def normalizations(
    network: Network,
) -> tuple[Normalization, tuple[tuple[str, Normalization], ...]]:
    """How the image is normalized, and each further plane: as in the start weights' checkpoint.

    Where that says nothing, measured planes are normalized as in the reference's NYUDv2 nets; an
    HHA image in the color's place always is.
    """
    planes = {name: PLANES[name] for name in network.planes}
    name = network.normalization
    image = NORMALIZATIONS[torchvisions(network.backbone) if name == "torchvision" else name]
    if (theirs := _checkpoint_of(network.init)) is not None:
        image = theirs.normalization
        planes |= {name: value for name, value in theirs.planes if name in planes}
    if (hha := _checkpoint_of(network.init_hha)) is not None:
        planes["hha"] = hha.normalization
    if network.image_plane:
        image = PLANES[network.image_plane]
    return image, tuple(planes.items())


def _checkpoint_of(init: str | None) -> ModelConfig | None:
    if init is None or checkpoints.is_weights(init):
        return None
    return checkpoints.load(init)[1]


def _start_weights(network: Network) -> str | dict[str, str] | None:
    """Start weights for the whole network, or for each stream by name."""
    if network.init is None or network.init_hha is None:
        return network.init
    return {"color": network.init, "hha": network.init_hha}


def wanted_planes(started: ModelConfig) -> tuple[str, ...]:
    """What each training image needs beside it: measured planes and further labels."""
    return (*started.needs, *(task.name for task in started.spec.more_tasks))


def check_same_classes(train_source: Source, val_source: Source) -> None:
    """Raise InputError if the two disagree on the names or the void id of any label."""
    ours, theirs = (_described(source) for source in (train_source, val_source))
    if ours != theirs:
        raise InputError(
            "training and validation data disagree on the classes: "
            f"{train_source.uri} has {ours}, {val_source.uri} has {theirs}"
        )


def _described(source: Source) -> str:
    labels = {"": ingest.classes_of(source), **source.tasks}
    return "; ".join(
        f"{name}{': ' * bool(name)}{list(classes.names)} (void {classes.void_id})"
        for name, classes in labels.items()
    )
