"""The arithmetic of a training step, for any number of workers and any split of the images."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fcn_model import ClassList, ModelConfig, NetworkSpec, Normalization, build
from fcn_model.normalize import TORCHVISION
from pipelines import train_loop
from pipelines.augment import augment, collate
from pipelines.errors import InputError
from pipelines.ingest import Pair
from pipelines.train_loop import Run, make_optimizer, rate_factor, train_step
from pipelines.train_settings import Solver

CLASSES = ClassList(names=("a", "b", "c"))
SPEC = NetworkSpec(num_classes=3, head="fcn8s", width=1 / 32, fc_width=8, dropout=0.0)


def _pair(key, height, width):
    rng = np.random.default_rng(len(key))
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    label = rng.integers(0, 3, (height, width), dtype=np.uint8)
    label[0] = 255
    return Pair(key, image, label)


PAIRS = [_pair("a", 9, 17), _pair("bb", 12, 5), _pair("ccc", 1, 1)]


def _run(solver, world=1):
    network = build(SPEC, seed=3)
    with torch.no_grad():  # zero score layers would hide most of the gradient
        for name, parameter in network.named_parameters():
            if name.startswith("score"):
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    return Run(
        solver=solver,
        network=network,
        model=network,
        config=ModelConfig(spec=SPEC, classes=CLASSES, normalization=TORCHVISION),
        optimizer=make_optimizer(network, solver),
        device=torch.device("cpu"),
        rank=0,
        world=world,
        records=None,
        shuffle_buffer=1,
        lines=None,
    )


def _gradients(run):
    return {name: p.grad.clone() for name, p in run.network.named_parameters()}


@pytest.mark.parametrize("loss", ["sum", "mean"])
@pytest.mark.parametrize("shares", [[[0], [1, 2]], [[0, 1, 2], []], [[2], [1], [0]]])
def test_any_split_over_workers_gives_the_gradient_of_one_worker(monkeypatch, loss, shares):
    solver = Solver(lr=1e-9, loss=loss, precision="fp32", mirror=False)
    alone = _run(solver)
    train_step(alone, PAIRS, 0.0)
    wanted = _gradients(alone)

    totals = torch.tensor(
        [len(PAIRS), sum(int((pair.label != 255).sum()) for pair in PAIRS)], dtype=torch.float64
    )
    monkeypatch.setattr(train_loop, "_sum_over_workers", lambda run, values: totals)
    of_workers = []
    for share in shares:
        worker = _run(solver, world=len(shares))
        train_step(worker, [PAIRS[index] for index in share], 0.0)
        of_workers.append(_gradients(worker))
    for name, gradient in wanted.items():  # what data-parallel training computes: the average
        mean = torch.stack([gradients[name] for gradients in of_workers]).mean(0)
        scale = gradient.abs().max().clamp(min=1e-12)
        assert ((mean - gradient).abs().max() / scale) < 1e-4, name


def test_the_summed_loss_starts_at_ln_k_per_pixel():
    solver = Solver(precision="fp32")
    run = _run(solver)
    run.network = run.model = build(SPEC, seed=0)
    loss, valid = train_step(run, PAIRS, 0.0).tolist()
    assert loss / valid == pytest.approx(np.log(3), abs=1e-6)


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_rate():
    run = _run(Solver(lr=7e-5, precision="fp32"))
    with torch.no_grad():
        run.network.score_fr.bias.fill_(float("nan"))
    with pytest.raises(InputError, match=r"lower solver.lr .now 7e-05"):
        train_step(run, PAIRS, 0.0)


def test_the_rate_rises_falls_and_never_reaches_zero():
    solver = Solver(schedule="poly", warmup=0.1)
    assert rate_factor(solver, 0.05) == pytest.approx(0.5 * 0.95**0.9)
    assert rate_factor(solver, 0.5) == pytest.approx(0.5**0.9)
    assert 0 < rate_factor(solver, 1.0) < 0.02
    assert rate_factor(Solver(), 0.7) == 1.0


def test_a_crop_is_a_window_of_the_image_and_its_label():
    rng = np.random.default_rng(0)
    label = np.arange(6 * 7, dtype=np.uint8).reshape(6, 7)
    image = np.repeat(label[:, :, None], 3, axis=2)
    seen = set()
    for _ in range(300):
        cut = augment(Pair("k", image, label), rng, mirror=True, crop=(4, 9))
        assert cut.label.shape == (4, 7)  # wider than the image: the whole axis
        assert (cut.image == cut.label[:, :, None]).all()
        rows, mirrored = cut.label[:, 0] // 7, cut.label[0, 0] > cut.label[0, 1]
        straight = cut.label[:, ::-1] if mirrored else cut.label
        assert (straight == label[rows[0] : rows[0] + 4]).all()
        seen.add((int(rows[0]), bool(mirrored)))
    assert seen == {(top, mirrored) for top in range(3) for mirrored in (False, True)}


def test_a_batch_is_zero_and_void_outside_each_image():
    normalization = Normalization(
        mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), scale=1.0, channel_order="rgb"
    )
    batch = collate(PAIRS, normalization, 255)
    assert batch.sizes == ((9, 17), (12, 5), (1, 1))
    assert batch.images_N3HW.shape == (3, 3, 12, 17)
    for index, pair in enumerate(PAIRS):
        height, width = batch.sizes[index]
        inside = batch.images_N3HW[index, :, :height, :width]
        assert (inside.permute(1, 2, 0).numpy() == pair.image).all()
        assert batch.images_N3HW[index].sum() == inside.sum()
        assert (batch.labels_NHW[index] != 255).sum() == (pair.label != 255).sum()


class _Checkpoint:
    """What Ray Train hands over: a directory."""

    def __init__(self, directory):
        self.directory = directory

    @contextmanager
    def as_directory(self):
        yield self.directory


def test_a_resumed_run_keeps_its_moments_and_takes_todays_settings(tmp_path, monkeypatch):
    monkeypatch.setattr("ray.train.report", lambda metrics, **_: None)
    monkeypatch.setattr(
        "ray.train.Checkpoint.from_directory", lambda path: shutil.copytree(path, tmp_path / "c")
    )
    first = _run(Solver(lr=1e-9, precision="fp32"))
    first.lines = SimpleNamespace(add=SimpleNamespace(remote=lambda _: None))
    train_step(first, PAIRS, 0.0)
    first.epoch = 1
    train_loop._report(first, {})
    second = _run(Solver(lr=1e-12, momentum=0.5, weight_decay=0.25, precision="fp32"))
    second.lines = first.lines
    assert train_loop._resume(second, _Checkpoint(tmp_path / "c")) == 1
    group = second.optimizer.param_groups[0]
    assert (group["base_lr"], group["momentum"], group["weight_decay"]) == (1e-12, 0.5, 0.25)
    for mine, theirs in zip(second.network.parameters(), first.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        moment = second.optimizer.state[mine]["momentum_buffer"]
        assert torch.equal(moment, first.optimizer.state[theirs]["momentum_buffer"])
    third = _run(Solver(optimizer="adamw", lr=1e-4))
    with pytest.raises(InputError, match="trained with sgd and cannot go on with adamw"):
        train_loop._resume(third, _Checkpoint(tmp_path / "c"))
