"""Fine-tune the network with Ray Train: what the driver does.

The run lives under ``<storage>/<name>/``: ``init/`` is the network it started from, Ray Train keeps
its per-epoch checkpoints beside it, ``best/`` is the checkpoint directory with the highest
validation mean IU of the first task, ``history.json`` has one entry per epoch, and where classes
are weighted ``label_counts.json`` how often each was seen. The same name again resumes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs
from ray.train import (
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    TrainingFailedError,
)
from ray.train.torch import TorchTrainer

from fcn_model.errors import FCNError
from pipelines import checkpoint_files, cluster, ingest, ray_data, storage
from pipelines.class_weights import weights_of_run
from pipelines.errors import ClusterError, InputError
from pipelines.every_row import EveryRow
from pipelines.kept_epochs import finished_epochs, remove_left_over
from pipelines.kept_memory import runtime_env, training_memory
from pipelines.progress import relay
from pipelines.sources import Source
from pipelines.train_loop import run_worker
from pipelines.train_settings import TrainConfig
from pipelines.train_start import check_same_classes, prepare_start, wanted_planes

Progress = Callable[[str], None]


@dataclass(frozen=True)
class TrainResult:
    """What a run left behind."""

    checkpoint: str
    mean_iu: float
    epoch: int
    history: tuple[dict[str, Any], ...]
    resumed_from: int


def train(
    config: TrainConfig, train_source: Source, val_source: Source, *, progress: Progress
) -> TrainResult:
    """Train, and publish the best network as the checkpoint directory ``<run>/best``.

    Needs a running Ray. Raises InputError for labels, sources or settings that do not fit, and
    ClusterError if the cluster cannot run it.
    """
    run_uri = storage.join(storage.parse_uri(config.storage), config.name)
    cluster.refuse_lost_paths(run_uri)
    use_gpu = _use_gpu(config)
    check_same_classes(train_source, val_source)
    for source in (train_source, val_source):
        if not source.units or source.records == 0:
            raise InputError(f"{source.uri} holds no image; training and validation need some")
    started = prepare_start(config, train_source, run_uri, progress)
    filesystem, path = storage.arrow_filesystem(storage.parse_uri(config.storage))
    if not storage.is_s3(run_uri):
        Path(path).mkdir(parents=True, exist_ok=True)
    weights = weights_of_run(run_uri, train_source, started, config.solver.class_weights)
    loop_config = {
        "config": config,
        "run_uri": run_uri,
        "records": train_source.records,
        "class_weights": weights,
    }
    planes = wanted_planes(started)
    tasks = cluster.decoding_tasks(config.num_workers, on_cpus=not use_gpu)
    # Ray counts the passes over a dataset, each with an order of its own, from the start of a job.
    order = config.solver.seed + finished_epochs(run_uri, filesystem, f"{path}/{config.name}")
    trainer = TorchTrainer(
        run_worker,
        train_loop_config=loop_config,
        scaling_config=ScalingConfig(num_workers=config.num_workers, use_gpu=use_gpu),
        run_config=RunConfig(
            name=config.name,
            storage_path=path,
            storage_filesystem=filesystem,
            checkpoint_config=CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute="mean_iu", checkpoint_score_order="max"
            ),
            failure_config=FailureConfig(max_failures=2),
            worker_runtime_env=runtime_env(training_memory(config.num_workers), gpu=use_gpu),
        ),
        datasets={
            "train": ingest.labelled_rows(
                train_source, shuffle_seed=order, planes=planes, tasks=tasks
            ),
            "val": ingest.labelled_rows(val_source, planes=planes, tasks=tasks),
        },
        dataset_config=EveryRow(learned=["train"]),
    )
    # Ray's own handler would end a stopped job with exit code 0, and stay in place afterwards.
    trainer._register_sigint_handler = lambda _controller: None
    with relay(progress) as loop_config["relay"]:
        try:
            result = trainer.fit()
        except (TrainingFailedError, *ray_data.FAILURES) as error:
            raise _plain(error) from error
    published = _publish(result, run_uri, progress)
    _tidy(result, filesystem, f"{path}/{config.name}", progress)
    return published


def _use_gpu(config: TrainConfig) -> bool:
    """Whether to train on GPUs. Raises ClusterError if the cluster is too small."""
    gpus = cluster.gpus()
    use_gpu = gpus > 0 if config.use_gpu is None else config.use_gpu
    if use_gpu and gpus < config.num_workers:
        raise ClusterError(
            f"{config.num_workers} workers with a GPU each were asked for, the cluster has {gpus}"
        )
    cluster.require_cpus(config.num_workers + 2, "training and decoding")
    return use_gpu


def _plain(error: Exception) -> Exception:
    """The error of ours inside what Ray Train raised, or a ClusterError with its first line."""
    failures = list(getattr(error, "worker_failures", {}).values())
    failures.append(getattr(error, "controller_failure", None))
    for failure in failures:
        cause = failure
        while cause is not None:
            if isinstance(cause, FCNError):
                return cause
            cause = getattr(cause, "cause", None) or cause.__cause__
    return ClusterError(f"training stopped: {ray_data.last_line(error)}")


def _tidy(result: Any, filesystem: pyarrow.fs.FileSystem, path: str, progress: Progress) -> None:
    """Remove the checkpoints that stopped jobs of the run have left; says so, or why not."""
    kept = {Path(checkpoint.path).name for checkpoint, _ in result.best_checkpoints}
    try:
        left = remove_left_over(filesystem, path, kept)
    except OSError as error:  # no reason to lose the work
        progress(f"checkpoints that stopped jobs left in {path} stay there: {error}")
        return
    if left:
        progress(f"removed checkpoints that stopped jobs left: {', '.join(left)}")


def _publish(result: Any, run_uri: str, progress: Progress) -> TrainResult:
    """Copy the best of Ray Train's checkpoints to ``best/`` and write ``history.json``."""
    if not result.best_checkpoints:
        raise ClusterError(f"run {run_uri} ended without a checkpoint: {result.error}")
    best, metrics = max(result.best_checkpoints, key=lambda pair: pair[1]["mean_iu"])
    state = result.return_value or {"history": [], "resumed_from": 0}
    best_uri = storage.join(run_uri, "best")
    with best.as_directory() as directory:
        for name in reversed(checkpoint_files.FILES):
            storage.replace(storage.join(best_uri, name), (Path(directory) / name).read_bytes())
    history = state["history"]
    storage.replace(storage.join(run_uri, "history.json"), json.dumps(history, indent=1).encode())
    progress(f"best of {len(history)} epochs: epoch {metrics['epoch']}, checkpoint {best_uri}")
    return TrainResult(
        checkpoint=best_uri,
        mean_iu=float(metrics["mean_iu"]),
        epoch=int(metrics["epoch"]),
        history=tuple(history),
        resumed_from=int(state["resumed_from"]),
    )
