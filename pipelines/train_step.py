"""One update of the weights, the same however its images are dealt to workers and passes.

Workers read disjoint rows of one stream and may get unequal numbers of them, so every step begins
by agreeing on how many images it has in all; a worker that has run out takes part with an empty
share. Gradients are scaled so that the update is that of one worker with all images in one batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch.nn.parallel import DistributedDataParallel

from fcn_model.losses import share_of_loss, summed_cross_entropy, weight_sums
from pipelines.batches import Batch, filler
from pipelines.errors import InputError
from pipelines.rates import rate_factor, set_rates
from pipelines.train_run import Run


def train_step(run: Run, passes: Sequence[Batch], progress: float) -> torch.Tensor:
    """One update from this worker's passes, which may be none, and every other worker's.

    ``progress`` is how much of the run is done. Returns this worker's summed loss and summed weight
    of valid pixels for each task, (tasks, 2) float64. Raises InputError if the loss is not finite.
    """
    passes = passes or [filler(run.config)]
    weights = [_weights(run, batch) for batch in passes]
    mine = torch.stack([weight_TN.sum(1) for weight_TN in weights]).sum(0)
    images = torch.tensor([sum(batch.images for batch in passes)]).double()
    *weight_T, images_of_all = run.sum_over_workers(torch.cat([mine, images])).tolist()
    if run.solver.loss == "sum":
        images_of_all *= run.solver.sampling  # an image is only so much of one
    set_rates(run.optimizer, rate_factor(run.solver, progress))
    run.optimizer.zero_grad(set_to_none=True)
    summed = torch.zeros(len(mine), dtype=torch.float64, device=run.device)
    for number, (batch, weight_TN) in enumerate(zip(passes, weights, strict=True), start=1):
        with _together(run, last=number == len(passes)):
            losses = _losses(run, batch)
            shares = [
                share_of_loss(
                    loss_N,
                    weight_N.to(run.device),
                    run.solver.loss,
                    images=images_of_all,
                    weight=weight,
                )
                for loss_N, weight_N, weight in zip(losses, weight_TN, weight_T, strict=True)
            ]
            # Data-parallel training averages the workers' gradients: undo that.
            (torch.stack(shares).sum() * run.world).backward()  # type: ignore[no-untyped-call]
        summed += torch.stack([loss_N.detach().double().sum() for loss_N in losses])
    run.optimizer.step()
    loss = summed.cpu()
    if not loss.isfinite().all():
        raise _diverged(run, f"the loss became {loss.sum().item()}")
    return torch.stack([loss, mine], 1)


def require_finite_weights(run: Run) -> None:
    """Raise InputError if a step has made weights infinite or no numbers, as all workers see.

    The loss only tells at the next step, and masks of such a network are of the first class.
    """
    for name, weight in run.network.named_parameters():
        if not weight.isfinite().all():
            raise _diverged(run, f"weights of {name} became infinite or no numbers")


def _diverged(run: Run, what: str) -> InputError:
    return InputError(
        f"{what} after {run.images} images; lower solver.lr "
        f"(now {run.solver.lr:g} with loss {run.solver.loss!r})"
    )


def _losses(run: Run, batch: Batch) -> list[torch.Tensor]:
    """Each task's summed loss of each image: (N,) float32, on the device."""
    images = batch.images_NCHW.to(run.device, memory_format=run.memory_format)
    with run.autocast():
        scores = run.model(images, batch.sizes)
    return [
        summed_cross_entropy(task_scores, labels.to(run.device), classes.void_id, class_weights)
        for task_scores, labels, classes, class_weights in zip(
            run.config.spec.split(scores),
            batch.labels_NHW,
            run.config.class_lists,
            run.class_weights,
            strict=True,
        )
    ]


def _weights(run: Run, batch: Batch) -> torch.Tensor:
    """The summed weight of each image's valid pixels for each task: (tasks, N) float64."""
    return torch.stack(
        [
            weight_sums(labels, classes.void_id, None if weights is None else weights.cpu())
            for labels, classes, weights in zip(
                batch.labels_NHW, run.config.class_lists, run.class_weights, strict=True
            )
        ]
    )


def _together(run: Run, *, last: bool) -> AbstractContextManager[None]:
    """Workers add up their gradients at the last pass of each, of which they may have unequally."""
    if last or not isinstance(run.model, DistributedDataParallel):
        return nullcontext()
    return run.model.no_sync()
