"""What each training worker runs: epochs of steps, validation, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import Any

import ray.train.torch
import torch

from fcn_model import Confusion
from fcn_model.geometry import coordinates
from fcn_model.kept import Kept
from fcn_model.precision import training_format
from pipelines import checkpoints, cluster, storage
from pipelines.ahead import ahead
from pipelines.augment import View, augment
from pipelines.batches import Batch, collate, plane_of
from pipelines.decoding import Pair
from pipelines.errors import InputError, as_data, from_data
from pipelines.progress import Relay
from pipelines.rates import for_workers, make_optimizer
from pipelines.seeds import Drawn, generator, seed_torch
from pipelines.train_pairs import KeptPairs, TrainPairs
from pipelines.train_run import Run, precision_of
from pipelines.train_settings import TrainConfig
from pipelines.train_state import report, resume
from pipelines.train_step import require_finite_weights, train_step

LOG_SECONDS = 10.0


def run_worker(settings: dict[str, Any]) -> dict[str, Any]:
    """Ray Train's per-worker function: resume or start, then train to the last epoch.

    Ray starts lost workers anew, and would do so after bad input too, which fails the same way
    each time: such an error is left with the driver's relay, and ends every further attempt.
    """
    relay: Relay = settings["relay"]
    if said := relay.refusal():
        raise from_data(said)
    try:
        return _run(settings)
    except InputError as error:
        relay.refuse(as_data(error))
        raise


def _run(settings: dict[str, Any]) -> dict[str, Any]:
    run = _start(settings)
    resumed_from = resume(run, ray.train.get_checkpoint(), settings["run_uri"])
    val = KeptPairs(ray.train.get_dataset_shard("val"))
    with closing(_train_pairs(run)) as training:
        training.allow()
        beside = False  # whether an epoch is fetched beside the one before it
        while run.epoch < run.solver.epochs:
            started = time.monotonic()
            losses, step_seconds = _train_epoch(run, training.epoch(run.epoch))
            require_finite_weights(run)
            trained = time.monotonic()
            confusions = validate(run, val)
            if not confusions[0].counts.any():
                raise InputError(
                    "no validation image has a pixel that is not void; give another --val"
                )
            training.allow()
            if not beside:
                beside = run.agreed(val.kept)
                if beside:
                    training.allow()
                else:
                    val.forget()
            run.epoch += 1
            metrics = _metrics(run, losses, confusions) | {
                "train_seconds": round(trained - started, 3),
                "step_seconds": round(step_seconds, 3),
                "val_seconds": round(time.monotonic() - trained, 3),
            }
            run.history.append(metrics)
            report(run, metrics)
            # Not before: who reads this may stop the job, and expects to go on from here.
            run.say(f"epoch {run.epoch}/{run.solver.epochs}: {_line(metrics)}")
    return {"history": run.history, "resumed_from": resumed_from}


def _metrics(run: Run, losses: Sequence[float], confusions: Sequence[Confusion]) -> dict[str, Any]:
    """The epoch in the history: the loss of all tasks, scores of the first by their plain names.

    Beside the paper's mean IU stands the one over classes that the labels hold, which SIFT Flow's
    published figures are (three of its classes are absent from the test set).
    """
    metrics: dict[str, Any] = {"epoch": run.epoch, "images": run.images, "loss": sum(losses)}
    for task, loss, confusion in zip(run.config.spec.tasks, losses, confusions, strict=True):
        first = task == run.config.spec.tasks[0]
        end = "" if first else f"_{task.name}"
        for name in ("mean_iu", "mean_iu_gt_present", "pixel_accuracy"):
            score = getattr(confusion, name)
            # JSON has no number for the scores of a further task whose labels all are void.
            metrics[name + end] = None if math.isnan(score) else score
        if len(losses) > 1:
            metrics[f"loss_{task.name}"] = loss
    return metrics


def _line(metrics: dict[str, Any]) -> str:
    """An epoch's metrics as they are shown."""
    return (
        f"loss {metrics['loss']:.4f} per pixel, val mean IU {metrics['mean_iu']:.4f}, "
        f"pixel accuracy {metrics['pixel_accuracy']:.4f}, "
        f"{metrics['train_seconds']:.1f} + {metrics['val_seconds']:.1f} s"
    )


def _start(settings: dict[str, Any]) -> Run:
    config: TrainConfig = settings["config"]
    context = ray.train.get_context()
    network, model_config = checkpoints.load(storage.join(settings["run_uri"], "init"))
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        # Ray gives a one-CPU worker one thread; share the machine's cores among its workers.
        torch.set_num_threads(cluster.threads_each(context.get_local_world_size()))
    solver = for_workers(config.solver, context.get_world_size())
    memory_format = training_format(device, precision_of(solver, device))
    network.to(device).to(memory_format=memory_format)
    run = Run(
        solver=solver,
        network=network,
        model=ray.train.torch.prepare_model(network, move_to_device=False),
        config=model_config,
        optimizer=make_optimizer(network, solver),
        device=device,
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        records=settings["records"],
        shuffle_buffer=config.shuffle_buffer,
        relay=settings["relay"],
        class_weights=tuple(
            None if weights is None else torch.tensor(weights, dtype=torch.float32, device=device)
            for weights in settings["class_weights"]
        ),
    )
    run.say(f"{run.world} workers on {device.type}, {run.precision}")
    if solver != config.solver:
        run.say(
            f"{solver.images_per_step} images a step instead of {config.solver.images_per_step}: "
            f"lr {solver.lr:.4g}, momentum {solver.momentum:.4g}"
        )
    return run


def _train_pairs(run: Run) -> TrainPairs:
    """The worker's training pairs, from the run's epoch to its last."""
    solver = run.solver
    return TrainPairs(
        ray.train.get_dataset_shard("train"),
        range(run.epoch, solver.epochs),
        buffer=max(run.shuffle_buffer, solver.images_per_pass),
        more=solver.images_per_pass * solver.iter_size,
        seed=solver.seed,
        rank=run.rank,
    )


def _train_epoch(run: Run, pairs: Iterator[Pair]) -> tuple[list[float], float]:
    """One pass over the training pairs; each task's mean loss per valid pixel, seconds in steps.

    The others went by waiting for pairs, and for them to be augmented and put together.
    """
    run.model.train()
    seed_torch(run.solver.seed, run.epoch, run.rank)
    before = run.images
    totals = torch.zeros((len(run.config.spec.tasks), 2), dtype=torch.float64)  # loss, weight
    said = started = time.monotonic()
    stepping = 0.0
    for passes in _in_step(run, ahead(_steps(run, pairs))):
        ready = time.monotonic()
        totals += train_step(run, passes, share_of_run(run, run.images - before))
        now = time.monotonic()
        stepping += now - ready
        if now - said > LOG_SECONDS:
            said, seen = now, run.images - before
            run.say(
                f"epoch {run.epoch + 1}: {seen} of {run.records or 'so far'} images, "
                f"loss {sum(_per_pixel(totals)):.4f}, {seen / (now - started):.2f} images/s"
            )
    summed = run.sum_over_workers(totals)
    if summed[0, 1] == 0:
        raise InputError(_nothing_to_learn(run.solver.sampling))
    return _per_pixel(summed), stepping


def _nothing_to_learn(sampling: float) -> str:
    """Why no pixel of an epoch counted, as far as the settings tell."""
    fault = "no training image has a pixel that is not void"
    if sampling == 1:
        return f"{fault}; give another --train"
    return (
        f"{fault} and that --sampling {sampling} has kept; give a larger --sampling, "
        "or another --train if all labels are void"
    )


def _per_pixel(totals: torch.Tensor) -> list[float]:
    """Mean losses per valid pixel, weighted where classes are, of (tasks, 2) sums and weights."""
    return [loss / weight if weight > 0 else 0.0 for loss, weight in totals.tolist()]


def _steps(run: Run, pairs: Iterator[Pair]) -> Iterator[list[Batch]]:
    """The worker's passes of each step, until it has no more pairs."""
    rng = generator(run.solver.seed, run.epoch, run.rank, Drawn.VIEWS)
    backbone = run.network.backbone
    cells = coordinates(backbone.path(backbone.top))
    views = (augment(_seen(run, pair), rng, run.solver, cells) for pair in pairs)
    passes = iter(lambda: list(islice(views, run.solver.images_per_pass)), [])
    batches = (collate(each, run.config) for each in passes)
    return iter(lambda: list(islice(batches, run.solver.iter_size)), [])


def _in_step(run: Run, steps: Iterator[list[Batch]]) -> Iterator[list[Batch]]:
    """The worker's passes of each step, then none until every worker is done; counts the images."""
    while True:
        passes = next(steps, [])
        mine = sum(batch.images for batch in passes)
        everyone = int(run.sum_over_workers(torch.tensor(mine)))
        if everyone == 0:
            return
        run.images += everyone
        yield passes


def _seen(run: Run, pair: Pair) -> Pair:
    """The pair, with another plane as its image where that is what the network sees."""
    plane = run.config.image_plane
    return replace(pair, image=plane_of(pair, plane)) if plane else pair


def share_of_run(run: Run, seen_in_epoch: int) -> float:
    """How much of the whole run is done, in 0..1."""
    in_epoch = min(seen_in_epoch / run.records, 1.0) if run.records else 0.0
    return (run.epoch + in_epoch) / run.solver.epochs


def validate(run: Run, pairs: Iterable[Pair]) -> list[Confusion]:
    """Whole-image masks of every validation pair, counted over all workers, for each task."""
    run.network.eval()
    kept = Kept()
    confusions = [Confusion(len(classes)) for classes in run.config.class_lists]
    # One by one: whole images may be much larger than the windows that training sees.
    for pair in pairs:
        batch = collate([View.of(_seen(run, pair))], run.config)
        images = batch.images_NCHW.to(run.device, memory_format=torch.channels_last)
        with torch.inference_mode(), run.autocast():
            scores = run.config.spec.split(run.network(images, batch.sizes, kept))
        for confusion, task_scores, labels, classes in zip(
            confusions, scores, batch.labels_NHW, run.config.class_lists, strict=True
        ):
            masks = task_scores.argmax(1).cpu()
            confusion.update(labels.numpy(), masks.numpy(), classes.void_id)
    return [
        Confusion.from_counts(run.sum_over_workers(torch.from_numpy(one.counts)).numpy())
        for one in confusions
    ]
