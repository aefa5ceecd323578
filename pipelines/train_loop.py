"""What each training worker runs: steps, validation, checkpoints.

Workers read disjoint rows of one stream and may get unequal numbers of them, so every step begins
by agreeing on how many images it has in all; a worker that has run out takes part with an empty
share until nobody has any. Gradients are scaled so that the update is that of one worker with the
whole batch, however the images fell (Caffe's ``normalize: false``: sum over pixels, mean over
images).
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train.torch
import torch
import torch.distributed as dist

from fcn_model import FCN, Confusion, ModelConfig, checkpoint
from fcn_model.losses import summed_cross_entropy
from fcn_model.solver import parameter_groups
from pipelines import checkpoints, cluster, storage
from pipelines.augment import Batch, augment, collate
from pipelines.errors import InputError, as_data, from_data
from pipelines.ingest import Pair, pairs_of
from pipelines.train_settings import Solver, TrainConfig

STATE_FILE = "training_state.pt"
LOG_SECONDS = 10.0


@dataclass
class Run:
    """The living state of one worker's training."""

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
    lines: Any  # the driver's `progress.relay`
    epoch: int = 0  # epochs finished
    images: int = 0  # images seen by all workers in all epochs
    history: list[dict[str, Any]] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Show a line on the driver, once for all workers."""
        if self.rank == 0:
            self.lines.add.remote(text)

    def autocast(self) -> torch.autocast:
        """The precision that the solver asks for."""
        enabled = self.solver.precision == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)


def run_worker(settings: dict[str, Any]) -> dict[str, Any]:
    """Ray Train's per-worker function: resume or start, then train to the last epoch.

    Ray starts lost workers anew, and would do so after bad input too, which fails the same way
    each time: such an error is left with the driver's relay, and ends every further attempt.
    """
    if said := ray.get(settings["lines"].refusal.remote()):
        raise from_data(said)
    try:
        return _run(settings)
    except InputError as error:
        ray.get(settings["lines"].refuse.remote(as_data(error)))
        raise


def _run(settings: dict[str, Any]) -> dict[str, Any]:
    run = _start(settings)
    resumed_from = _resume(run, ray.train.get_checkpoint())
    train_rows = ray.train.get_dataset_shard("train")
    val_rows = ray.train.get_dataset_shard("val")
    while run.epoch < run.solver.epochs:
        started = time.monotonic()
        loss = _train_epoch(run, train_rows)
        trained = time.monotonic()
        confusion = validate(run, val_rows)
        if not confusion.counts.any():
            raise InputError("no validation image has a pixel that is not void; give another --val")
        run.epoch += 1
        metrics = {
            "epoch": run.epoch,
            "images": run.images,
            "loss": loss,
            "mean_iu": confusion.mean_iu,
            "pixel_accuracy": confusion.pixel_accuracy,
            "train_seconds": round(trained - started, 1),
            "val_seconds": round(time.monotonic() - trained, 1),
        }
        run.history.append(metrics)
        run.say(
            f"epoch {run.epoch}/{run.solver.epochs}: loss {loss:.4f} per pixel, "
            f"val mean IU {confusion.mean_iu:.4f}, pixel accuracy {confusion.pixel_accuracy:.4f}, "
            f"{metrics['train_seconds']} + {metrics['val_seconds']} s"
        )
        _report(run, metrics)
    return {"history": run.history, "resumed_from": resumed_from}


def _start(settings: dict[str, Any]) -> Run:
    config: TrainConfig = settings["config"]
    context = ray.train.get_context()
    network, model_config = checkpoints.load(storage.join(settings["run_uri"], "init"))
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        # Ray gives a one-CPU worker one thread; share the machine's cores among its workers.
        torch.set_num_threads(max(1, cluster.usable_cores() // context.get_local_world_size()))
    torch.manual_seed(config.solver.seed + context.get_world_rank())
    network.to(device).to(memory_format=torch.channels_last)
    return Run(
        solver=config.solver,
        network=network,
        model=ray.train.torch.prepare_model(network, move_to_device=False),
        config=model_config,
        optimizer=make_optimizer(network, config.solver),
        device=device,
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        records=settings["records"],
        shuffle_buffer=config.shuffle_buffer,
        lines=settings["lines"],
    )


def make_optimizer(network: FCN, solver: Solver) -> torch.optim.Optimizer:
    """SGD or AdamW with the paper's groups; each group remembers its rate as ``base_lr``."""
    groups = parameter_groups(network, lr=solver.lr, weight_decay=solver.weight_decay)
    for group in groups:
        group["base_lr"] = group["lr"]
    if solver.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=solver.lr, momentum=solver.momentum)
    return torch.optim.AdamW(groups, lr=solver.lr, fused=True)


def _resume(run: Run, latest: Any) -> int:
    """Load the run's latest checkpoint, if there is one; return the epochs it had finished."""
    if latest is None:
        return 0
    with latest.as_directory() as directory:
        network, _ = checkpoint.load(Path(directory))
        data = (Path(directory) / STATE_FILE).read_bytes()
    state = torch.load(io.BytesIO(data), map_location=run.device, weights_only=True)
    run.network.load_state_dict(network.state_dict())
    if state["kind"] != run.solver.optimizer:
        raise InputError(
            f"the run was trained with {state['kind']} and cannot go on with "
            f"{run.solver.optimizer}; choose another --name to start anew"
        )
    # Only the moments are restored: rates and decays are those that were asked for this time.
    asked = [
        {name: value for name, value in group.items() if name != "params"}
        for group in run.optimizer.param_groups
    ]
    run.optimizer.load_state_dict(state["optimizer"])
    for group, settings in zip(run.optimizer.param_groups, asked, strict=True):
        group.update(settings)
    run.epoch, run.images = state["epoch"], state["images"]
    run.history = state["history"]
    run.say(f"resumed after epoch {run.epoch}")
    return run.epoch


def _train_epoch(run: Run, rows: Any) -> float:
    """One pass over the training rows; returns the mean loss per valid pixel of all workers."""
    run.model.train()
    # Seeded by the epoch too: a resumed run must not repeat the draws of its first epoch.
    rng = np.random.default_rng([run.solver.seed, run.epoch, run.rank])
    batches = rows.iter_batches(
        batch_size=run.solver.batch_size,
        batch_format="pyarrow",
        prefetch_batches=2,
        local_shuffle_buffer_size=max(run.shuffle_buffer, run.solver.batch_size),
        local_shuffle_seed=run.solver.seed + run.epoch,
    )
    before, totals = run.images, torch.zeros(2, dtype=torch.float64)  # loss, valid pixels
    said = started = time.monotonic()
    for pairs in _in_step(run, batches):
        augmented = [
            augment(pair, rng, mirror=run.solver.mirror, crop=run.solver.crop) for pair in pairs
        ]
        totals += train_step(run, augmented, share_of_run(run, run.images - before))
        now = time.monotonic()
        if now - said > LOG_SECONDS:
            said, seen = now, run.images - before
            run.say(
                f"epoch {run.epoch + 1}: {seen} of {run.records or 'so far'} images, "
                f"loss {totals[0] / totals[1].clamp(min=1):.4f}, {seen / (now - started):.2f} "
                "images/s"
            )
    loss, pixels = _sum_over_workers(run, totals).tolist()
    return loss / max(pixels, 1)


def _in_step(run: Run, batches: Iterator[Any]) -> Iterator[list[Pair]]:
    """The worker's batches, then empty lists until every worker is done; counts the images."""
    mine = iter(batches)
    while True:
        table = next(mine, None)
        pairs = [] if table is None else pairs_of(table)
        everyone = int(_sum_over_workers(run, torch.tensor(len(pairs))))
        if everyone == 0:
            return
        run.images += everyone
        yield pairs


def share_of_run(run: Run, seen_in_epoch: int) -> float:
    """How much of the whole run is done, in 0..1."""
    in_epoch = min(seen_in_epoch / run.records, 1.0) if run.records else 0.0
    return (run.epoch + in_epoch) / run.solver.epochs


def rate_factor(solver: Solver, share: float) -> float:
    """The learning rate's factor after ``share`` of the run (0..1)."""
    rising = min(share / solver.warmup, 1.0) if solver.warmup else 1.0
    # A hundredth is kept, so that the last steps and an unknown epoch length do no harm.
    falling = max(1.0 - share, 0.01) ** 0.9 if solver.schedule == "poly" else 1.0
    return max(rising, 0.01) * falling


def train_step(run: Run, pairs: Sequence[Pair], share: float) -> torch.Tensor:
    """One update from this worker's pairs, which may be none, and every other worker's.

    Returns this worker's summed loss and number of valid pixels (2, float64).
    Raises InputError if the loss is not finite.
    """
    batch = _batch(run, pairs)
    valid = int((batch.labels_NHW != run.config.classes.void_id).sum())
    counts = _sum_over_workers(run, torch.tensor([len(pairs), valid], dtype=torch.float64))
    divisor = counts[0] if run.solver.loss == "sum" else counts[1]
    for group in run.optimizer.param_groups:
        group["lr"] = group["base_lr"] * rate_factor(run.solver, share)
    run.optimizer.zero_grad(set_to_none=True)
    images = batch.images_N3HW.to(run.device, memory_format=torch.channels_last)
    with run.autocast():
        scores = run.model(images, batch.sizes)
    labels = batch.labels_NHW.to(run.device)
    loss = summed_cross_entropy(scores, labels, run.config.classes.void_id)
    # Data-parallel training averages the workers' gradients: undo that, then divide once.
    (loss * (run.world / max(float(divisor), 1.0))).backward()  # type: ignore[no-untyped-call]
    run.optimizer.step()
    value = float(loss.detach())
    if not np.isfinite(value):
        raise InputError(
            f"the loss became {value} after {run.images} images; lower solver.lr "
            f"(now {run.solver.lr:g} with loss {run.solver.loss!r})"
        )
    return torch.tensor([value, valid], dtype=torch.float64)


def _batch(run: Run, pairs: Sequence[Pair]) -> Batch:
    if not pairs:  # one void pixel: no loss, no gradient, but a part in the collective calls
        nothing = np.zeros((1, 1, 3), np.uint8), np.full((1, 1), run.config.classes.void_id)
        pairs = [Pair("", nothing[0], nothing[1].astype(np.uint8))]
    return collate(pairs, run.config.normalization, run.config.classes.void_id)


def validate(run: Run, rows: Any) -> Confusion:
    """Whole-image masks of every validation row, counted over all workers."""
    run.network.eval()
    classes = run.config.classes
    confusion = Confusion(len(classes))
    # One by one: whole images may be much larger than the windows that training sees.
    for table in rows.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=2):
        batch = collate(pairs_of(table), run.config.normalization, classes.void_id)
        images = batch.images_N3HW.to(run.device, memory_format=torch.channels_last)
        with torch.inference_mode(), run.autocast():
            masks = run.network(images, batch.sizes).argmax(1).cpu()
        confusion.update(batch.labels_NHW.numpy(), masks.numpy(), classes.void_id)
    counts = _sum_over_workers(run, torch.from_numpy(confusion.counts))
    return Confusion.from_counts(counts.numpy())


def _sum_over_workers(run: Run, values: torch.Tensor) -> torch.Tensor:
    """The element-wise sum of every worker's ``values``, exact for integers."""
    if run.world == 1:
        return values
    summed = values.to(run.device)
    dist.all_reduce(summed)
    return summed.cpu()


def _report(run: Run, metrics: dict[str, Any]) -> None:
    """Hand the epoch's checkpoint to Ray Train; returns when it is stored."""
    if run.rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as directory:
        checkpoint.save(Path(directory), run.network, run.config)
        state = {
            "kind": run.solver.optimizer,
            "optimizer": run.optimizer.state_dict(),
            "epoch": run.epoch,
            "images": run.images,
            "history": run.history,
        }
        torch.save(state, Path(directory) / STATE_FILE)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(directory))
