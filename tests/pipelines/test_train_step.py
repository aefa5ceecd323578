"""The arithmetic of training steps, for any number of workers and any way images are dealt."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from fcn_model import ClassList, ModelConfig, NetworkSpec, build
from fcn_model.class_weights import LabelCounts
from fcn_model.geometry import Coordinates
from fcn_model.normalize import TORCHVISION
from pipelines.augment import View, augment
from pipelines.batches import collate
from pipelines.decoding import Pair
from pipelines.errors import InputError
from pipelines.progress import Relay
from pipelines.rates import for_workers, make_optimizer, rate_factor
from pipelines.train_run import Run
from pipelines.train_settings import Solver
from pipelines.train_step import require_finite_weights, train_step

CLASSES = ClassList(names=("a", "b", "c"))
SPEC = NetworkSpec(num_classes=3, head="fcn8s", width=1 / 32, fc_width=8, dropout=0.0)

SHARED = Solver(momentum=0.9, weight_decay=0.01, precision="fp32")
SOLVERS = [
    replace(SHARED, loss="sum", lr=1e-4),
    replace(SHARED, loss="mean", lr=0.05, class_weights="median-frequency"),
    replace(SHARED, loss="image-mean", lr=0.05),
]
"""The reductions, one of them weighted, at rates that move the weights and keep the loss finite."""

STEPS = [
    # The images of each worker's passes: three at once, ragged ones, a worker without any.
    ([["a"], ["bb"]], [["ccc"]], []),
    ([["ccc", "a"]], [["bb"], ["dddd"]], [["a"]]),
    ([], [["dddd"]], [["bb"]]),
    ([["a"]], [["bb"]], [["dddd"]]),
]


def make_pair(key, height, width):
    rng = np.random.default_rng(len(key))
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    label = rng.integers(0, 3, (height, width), dtype=np.uint8)
    label[0] = 255
    return Pair(key, image, label)


PAIRS = {
    pair.key: pair
    for pair in (
        make_pair("a", 9, 17),
        make_pair("bb", 12, 5),
        make_pair("ccc", 1, 1),  # all void
        make_pair("dddd", 40, 33),
    )
}


def make_run(solver, *, rank=0, world=1):
    network = build(SPEC, seed=3)
    with torch.no_grad():  # zero score layers would hide most of the gradient
        for name, parameter in network.named_parameters():
            if name.startswith("score"):
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
    counts = sum(
        (LabelCounts.of_label(pair.label, 3) for pair in PAIRS.values()), LabelCounts.none(3)
    )
    weights = counts.weights(solver.class_weights)
    return Run(
        solver=solver,
        network=network,
        model=DistributedDataParallel(network) if world > 1 else network,
        config=ModelConfig(spec=SPEC, classes=CLASSES, normalization=TORCHVISION),
        optimizer=make_optimizer(network, solver),
        device=torch.device("cpu"),
        rank=rank,
        world=world,
        records=None,
        shuffle_buffer=1,
        relay=Relay(""),
        class_weights=(None if weights is None else torch.tensor(weights, dtype=torch.float32),),
    )


def batches(run, passes):
    return [collate([View.of(PAIRS[key]) for key in keys], run.config) for keys in passes]


def course(run, steps):
    """The weights after every step, and the summed totals, of passes of this worker."""
    weights, totals = [], torch.zeros(1, 2, dtype=torch.float64)
    for passes in steps:
        totals += train_step(run, batches(run, passes), 0.0)
        weights.append([value.detach().clone() for value in run.network.parameters()])
    return weights, run.sum_over_workers(totals)


def work(rank, world, address, file):
    """One of several workers, in a process of its own."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    outcomes = [
        course(make_run(solver, rank=rank, world=world), [step[rank] for step in STEPS])
        for solver in SOLVERS
    ]
    if rank == 0:
        torch.save(outcomes, file)
    dist.barrier()
    dist.destroy_process_group()


def test_workers_and_passes_take_the_steps_of_one_worker_with_all_images_in_one_batch(tmp_path):
    context = multiprocessing.get_context("spawn")
    address, file = f"file://{tmp_path}/meet", str(tmp_path / "outcomes.pt")
    workers = [
        context.Process(target=work, args=(rank, 3, address, file), daemon=True)
        for rank in range(3)
    ]
    for worker in workers:
        worker.start()
    alone = [
        course(
            make_run(solver),
            [[[key for passes in step for keys in passes for key in keys]] for step in STEPS],
        )
        for solver in SOLVERS
    ]
    for worker in workers:
        worker.join(timeout=300)
        assert worker.exitcode == 0
    together = torch.load(file)
    for (weights, totals), (their_weights, their_totals) in zip(alone, together, strict=True):
        torch.testing.assert_close(totals, their_totals, rtol=1e-5, atol=0)
        start = list(build(SPEC, seed=3).parameters())
        for before, ours, theirs in zip([start, *weights], weights, their_weights, strict=False):
            for old, mine, other in zip(before, ours, theirs, strict=True):
                moved = (mine - old).abs().max().clamp(min=1e-7)
                assert (mine - other).abs().max() / moved < 1e-3


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_step_is_caffes_with_iter_size_by_hand(memory_format):
    """FCN-AlexNet's recipe: the mean of the passes' means, then momentum and decay."""
    solver = Solver(
        loss="image-mean", lr=0.01, momentum=0.9, weight_decay=0.1, iter_size=3, precision="fp32"
    )
    run, twin = make_run(solver), make_run(solver).network
    run.network.to(memory_format=memory_format)
    w = {name: value.detach().double().numpy() for name, value in twin.named_parameters()}
    v = {name: np.zeros_like(value) for name, value in w.items()}
    for _ in range(3):
        train_step(run, batches(run, [["a"], ["bb"], ["dddd"]]), 0.0)
        gradient = dict.fromkeys(w, 0.0)
        for key in ("a", "bb", "dddd"):
            batch = batches(run, [[key]])[0]
            twin.zero_grad()
            scores = twin(batch.images_NCHW)
            torch.nn.functional.cross_entropy(
                scores, batch.labels_NHW[0], ignore_index=255
            ).backward()
            for name, value in twin.named_parameters():
                gradient[name] = gradient[name] + value.grad.double().numpy() / 3
        for name, value in w.items():
            lr, decay = (0.02, 0) if name.endswith("bias") else (0.01, 0.1)
            v[name] = 0.9 * v[name] + lr * (gradient[name] + decay * value)
            w[name] = value - v[name]
        with torch.no_grad():
            for name, value in twin.named_parameters():
                value.copy_(torch.from_numpy(w[name]))
        for name, value in run.network.named_parameters():
            scale = np.abs(v[name]).max() + 1e-9
            assert np.abs(value.detach().numpy() - w[name]).max() / scale < 1e-3, name


def test_sampled_steps_have_the_gradient_of_whole_images_on_average():
    """Oracle: the loss is a sum over cells, so its mean over draws tends to the full gradient."""
    cells, rng = Coordinates(Fraction(8), Fraction(3)), np.random.default_rng(0)
    full = Solver(lr=1e-12, precision="fp32", mirror=False)
    run = make_run(full)
    train_step(run, batches(run, [["dddd"]]), 0.0)
    wanted = run.network.score_fr.bias.grad.clone()
    sampled = make_run(replace(full, sampling=0.25, batch_size=1))
    assert sampled.solver.images_per_pass == 4
    drawn = []
    for _ in range(40):
        views = [augment(PAIRS["dddd"], rng, sampled.solver, cells) for _ in range(4)]
        train_step(sampled, [collate(views, run.config)], 0.0)
        drawn.append(sampled.network.score_fr.bias.grad.clone())
    mean, error = torch.stack(drawn).mean(0), torch.stack(drawn).std(0) / 40**0.5
    assert ((mean - wanted).abs() < 4 * error).all()
    assert (error < 0.2 * wanted.abs().max()).all()


def test_the_loss_starts_at_ln_k_per_pixel_also_weighted_and_sampled():
    solver = Solver(precision="fp32", class_weights="enet", sampling=0.5)
    run = make_run(solver)
    run.network = run.model = build(SPEC, seed=0)
    rng, cells = np.random.default_rng(1), Coordinates(Fraction(4), Fraction(0))
    views = [augment(PAIRS[key], rng, solver, cells) for key in ("a", "dddd")]
    loss, weight = train_step(run, [collate(views, run.config)], 0.0)[0].tolist()
    assert loss / weight == pytest.approx(np.log(3), abs=1e-6)


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_rate():
    run = make_run(Solver(lr=7e-5, precision="fp32"))
    with torch.no_grad():
        run.network.score_fr.bias.fill_(float("nan"))
    with pytest.raises(InputError, match=r"lower solver.lr .now 7e-05"):
        train_step(run, batches(run, [["a"]]), 0.0)


def test_weights_that_are_not_finite_end_the_run_before_they_are_a_checkpoint():
    run = make_run(Solver(lr=1e30, loss="mean", momentum=0.0, precision="fp32"))
    require_finite_weights(run)
    train_step(run, batches(run, [["dddd"]]), 0.0)  # its loss is that of the weights before
    train_step(run, batches(run, [["ccc"]]), 0.0)  # all void: no loss, and decay of 1e30 weights
    with pytest.raises(
        InputError, match=r"weights of .* became infinite.* lower solver.lr .now 1e"
    ):
        require_finite_weights(run)


def test_the_rate_rises_falls_and_never_reaches_zero():
    solver = Solver(schedule="poly", warmup=0.1)
    assert rate_factor(solver, 0.05) == pytest.approx(0.5 * 0.95**0.9)
    assert rate_factor(solver, 0.5) == pytest.approx(0.5**0.9)
    assert 0 < rate_factor(solver, 1.0) < 0.02
    assert rate_factor(Solver(), 0.7) == 1.0


def test_solvers_are_retimed_for_workers_only_where_a_recipe_says_for_how_many_images():
    heavy = Solver(images_per_step=1)
    assert for_workers(heavy, 1) is heavy
    assert for_workers(Solver(), 8) == Solver()
    assert for_workers(replace(heavy, optimizer="adamw"), 8).lr == heavy.lr
    ways = [
        for_workers(replace(heavy, batch_size=batch, iter_size=passes), workers)
        for workers, batch, passes in ((8, 1, 1), (1, 8, 1), (2, 2, 2))
    ]
    assert {(way.lr, way.momentum) for way in ways} == {(ways[0].lr, ways[0].momentum)}
    assert ways[0].momentum == pytest.approx(0.99**8)
    assert ways[0].lr == pytest.approx(8e-10 * (1 - 0.99**8) / 0.01)
