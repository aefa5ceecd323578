"""What a run leaves at the end of an epoch, and how it goes on from there."""

from __future__ import annotations

import io
import pickle
import tempfile
from pathlib import Path
from typing import Any

import ray.train
import torch

from fcn_model import FCN, checkpoint
from fcn_model.errors import CheckpointError
from pipelines import storage
from pipelines.errors import InputError, first_sentence
from pipelines.train_run import Run
from pipelines.train_settings import START_ANEW

STATE_FILE = "training_state.pt"
STATE = ("kind", "optimizer", "epoch", "images", "history")

DAMAGE = (
    pickle.UnpicklingError,
    AssertionError,
    AttributeError,
    EOFError,
    FileNotFoundError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What torch raises of a file that is not as it was written."""


def resume(run: Run, latest: Any, run_uri: str) -> int:
    """Load the run's latest checkpoint, if there is one; return the epochs it had finished.

    Raises InputError if it is damaged, or of another optimizer.
    """
    if latest is None:
        return 0
    with latest.as_directory() as directory:
        network, state = _read(Path(directory), storage.join(run_uri, Path(latest.path).name))
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
    # Fused optimizers take a weight and its moments as they lie in memory, in whatever order; that
    # of weights depends on the device and the precision, which may be others than before.
    for weight, moments in run.optimizer.state.items():
        for name, value in moments.items():
            if torch.is_tensor(value) and value.shape == weight.shape:
                moments[name] = torch.empty_like(weight).copy_(value)
    run.epoch, run.images = state["epoch"], state["images"]
    run.history = state["history"]
    run.say(f"resumed after epoch {run.epoch}")
    return run.epoch


def _read(directory: Path, uri: str) -> tuple[FCN, dict[str, Any]]:
    """The network and the state that `report` left, on the CPU; ``uri`` is for the error."""
    try:
        network, _ = checkpoint.load(directory)
    except CheckpointError as error:
        fault = error.__cause__ or error  # without the directory, which may be a copy
        raise InputError(f"the run cannot go on from {uri}: {fault}; {START_ANEW}") from error
    try:
        data = (directory / STATE_FILE).read_bytes()
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        return network, {name: state[name] for name in STATE}
    except DAMAGE as error:
        raise InputError(
            f"the run cannot go on from {storage.join(uri, STATE_FILE)}, which is cut, damaged or "
            f"missing ({first_sentence(error)}); {START_ANEW}"
        ) from error


def report(run: Run, metrics: dict[str, Any]) -> None:
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
