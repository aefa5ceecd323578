"""What has to be right before a night of segmentation starts, looked at in seconds.

A job that finds at six in the morning that it may not write has lost the night. So everything that
can be known beforehand is tried, the cheap things first and writing last; the first that is wrong
ends the job with one line, and nothing is left behind. That the head is not open to strangers is
seen to when it is joined (`pipelines.cluster_access`).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import ray

from fcn_model import ModelConfig
from pipelines import checkpoint_files, cluster, storage
from pipelines.errors import ChangedError, InputError, NotFoundError, StoreError
from pipelines.segmentation.amounts import size
from pipelines.segmentation.settings import SegmentConfig
from pipelines.sources import Source
from pipelines.storage.deadline import ends_within
from pipelines.storage.probe import probe
from pipelines.units import Unit

READ_SECONDS = 2.0
"""How long a store may take to hand out a few bytes. A night that runs waits longer for a store in
trouble; it need not start with one."""

MASK_SHARE = 0.1
"""Bytes of masks for a byte of input. Label PNGs took 0.04 of their JPEGs in VOC 2012, 0.09 in
CamVid and 0.11 in ADE20K (the samples of docs/real_data.md)."""

SPARE_BYTES = 64 << 20
"""For plans, records of runs, and whatever else shares the disk."""

_LOOKED_AT = 8


@dataclass(frozen=True)
class Check:
    """Something that was looked at and is right: ``found`` says what, in one sentence."""

    what: str
    found: str


@dataclass(frozen=True)
class Ready:
    """What a run needs is there; ``model`` is what the checkpoint says of its network."""

    model: ModelConfig
    checks: tuple[Check, ...]


def check(config: SegmentConfig, source: Source) -> Ready:
    """Look at input, checkpoint and output; raise for the first thing that is wrong.

    Needs no Ray, which takes longer to start than all of this. Raises InputError or CheckpointError
    for what the user has to correct (NotFoundError for a bucket that does not exist), StoreError
    for a store that is unreachable, refuses, or does not create exclusively.
    """
    output = storage.parse_uri(config.output)
    storage.parse_uri(config.checkpoint)
    placed = check_place(output, source)
    read = check_read(source)
    model = checkpoint_files.config_of(config.checkpoint)
    check_fits(config, model, source)
    name = f"{model.spec.name}, {len(model.classes)} classes, digest {model.digest[:12]}"
    return Ready(model, (read, Check("checkpoint", name), placed, check_write(output)))


def check_place(output: str, source: Source) -> Check:
    """Raise InputError if there is no input, or the output lies where it must not."""
    source.refuse_inside(output)
    cluster.refuse_lost_paths(output)
    if not source.units:
        raise InputError(f"{source.uri} holds no image")
    return Check("place", f"{output}, outside the input")


def check_read(source: Source) -> Check:
    """Fetch a few bytes of the input. Raises StoreError if that is refused or takes too long."""
    filled = (ref for unit in source.units for ref in unit.objects if ref.size)
    for ref in islice(filled, _LOOKED_AT):
        try:
            with ends_within(READ_SECONDS), storage.open_ranged(ref) as file:
                file.read(16)
        except (ChangedError, NotFoundError):
            continue  # since it was listed, as happens; the night sees to it
        return Check("read", f"{ref.uri} can be read")
    return Check("read", f"the first objects of {source.uri} are all empty, changed or gone")


def check_fits(config: SegmentConfig, model: ModelConfig, source: Source) -> None:
    """Raise InputError if the network has no such task or needs planes that the source lacks."""
    tasks = [task.name for task in model.spec.tasks]
    if config.task is not None and config.task not in tasks:
        raise InputError(
            f"task {config.task!r} is none of {model.spec.name}'s in {config.checkpoint}: "
            + (f"it has {tasks}" if tasks != [""] else "it has a single one; leave --task out")
        )
    missing = [name for name in model.needs if name not in source.planes]
    if missing:
        raise InputError(
            f"{model.spec.name} needs {missing[0]!r} for each image, which {source.uri} does not "
            f"have; it has images and {list(source.planes) or 'nothing else'}"
        )


def check_cluster(config: SegmentConfig) -> Check:
    """Raise ClusterError if the cluster counts too few logical CPUs or GPUs for the actors.

    Needs a running Ray.
    """
    cluster.require_actors(config.num_actors)
    gpus = cluster.gpus()
    kind = f"{gpus} GPUs for {config.num_actors} actors" if gpus else "the network runs on CPUs"
    nodes = sum(node["Alive"] for node in ray.nodes())
    disk = nodes > 1 and not storage.is_s3(storage.parse_uri(config.output))
    shared = f"; all {nodes} nodes must share the output's disk" if disk else ""
    found = f"it has the {config.num_actors + 1} logical CPUs it takes; {kind}{shared}"
    return Check("cluster", found)


def check_write(output: str) -> Check:
    """Create an object, be refused a second one at its name, and delete it.

    Raises StoreError if the store forbids one of these, or does not refuse; NotFoundError if the
    bucket does not exist.
    """
    probe(output)
    return Check("write", f"{output} creates an object once, not twice, and deletes it")


def check_space(output: str, units: Sequence[Unit], *, wanted: int | None = None) -> Check:
    """Raise StoreError if a local disk has no room for the masks of ``units``.

    ``wanted`` is their size in bytes where somebody knows better than `MASK_SHARE` of the input.
    """
    if storage.is_s3(output):
        return Check("space", "an object store's own affair")
    if wanted is None:
        wanted = int(MASK_SHARE * input_bytes(units))
    folder = storage.local_path(output)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < wanted + SPARE_BYTES:
        raise StoreError(
            f"the disk of {output} has {size(free)} free; the masks of {len(units)} units take "
            f"about {size(wanted)}, and {size(SPARE_BYTES)} should stay. Make room, or choose "
            "another --output"
        )
    return Check("space", f"{size(free)} free, about {size(wanted)} needed")


def input_bytes(units: Sequence[Unit]) -> int:
    """Bytes of the objects of some units, each object counted once."""
    return sum({ref.uri: ref.size for unit in units for ref in unit.objects}.values())
