"""Epochs of a worker: every image once, all tasks scored, and going on where a run stopped."""

from __future__ import annotations

import itertools
import json
import shutil
from contextlib import closing, contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch

from fcn_model import ClassList, Confusion, ModelConfig, NetworkSpec, build
from fcn_model.normalize import NYUD_HHA, TORCHVISION
from fcn_model.spec import Task
from pipelines import train_loop
from pipelines.decoding import Pair
from pipelines.errors import InputError
from pipelines.ingest import rows_table
from pipelines.progress import Relay
from pipelines.rates import make_optimizer
from pipelines.seeds import Drawn, generator
from pipelines.train_pairs import fetched
from pipelines.train_run import Run
from pipelines.train_settings import Solver
from pipelines.train_state import report, resume

CONFIG = ModelConfig(
    spec=NetworkSpec(
        num_classes=3,
        head="fcn32s",
        width=1 / 32,
        fc_width=8,
        dropout=0.0,
        more_tasks=(Task("geo", 2),),
    ),
    classes=ClassList(names=("a", "b", "c")),
    more_classes=(ClassList(names=("sky", "ground")),),
    normalization=TORCHVISION,
)


def make_pair(index: int) -> Pair:
    rng = np.random.default_rng(index)
    size = (4 + index, 9)
    planes = {
        "geo": rng.integers(0, 2, size, dtype=np.uint8),
        "hha": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
    }
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    return Pair(str(index), image, rng.integers(0, 3, size, dtype=np.uint8), planes)


RUN = "file:///runs/run"
PAIRS = [make_pair(index) for index in range(5)]


class Rows:
    """What Ray Train gives a worker: its rows in batches, here in order."""

    def iter_batches(self, *, batch_size, **_):
        assert batch_size is None
        for start in range(0, len(PAIRS), 2):
            yield rows_table(PAIRS[start : start + 2], ("geo", "hha"))


def make_run(solver, config=CONFIG):
    network = build(config.spec, seed=3)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("score"):
                parameter.normal_(0, 1, generator=torch.Generator().manual_seed(len(name)))
    return Run(
        solver=solver,
        network=network,
        model=network,
        config=config,
        optimizer=make_optimizer(network, solver),
        device=torch.device("cpu"),
        rank=0,
        world=1,
        records=5,
        shuffle_buffer=1,
        relay=cast(Relay, SimpleNamespace(say=lambda _: None)),
        class_weights=(None,) * len(config.spec.tasks),
    )


@pytest.mark.parametrize(
    ("solver", "steps"),
    [
        (Solver(batch_size=2), [[2], [2], [1]]),
        (Solver(iter_size=2), [[1, 1], [1, 1], [1]]),
        (Solver(batch_size=2, iter_size=2), [[2, 2], [1]]),
        (Solver(sampling=0.5), [[2], [2], [1]]),
    ],
)
def test_an_epoch_sees_each_image_once_in_steps_of_passes(monkeypatch, solver, steps):
    seen = []

    def step(_run, passes, share):
        seen.append(([batch.images for batch in passes], share))
        return torch.tensor([[6.0, 2.0], [1.0, 4.0]]).double()

    monkeypatch.setattr(train_loop, "train_step", step)
    run = make_run(solver)
    losses, step_seconds = train_loop._train_epoch(run, fetched(Rows()))
    assert losses == [3.0, 0.25]
    assert 0 <= step_seconds < 60
    assert [images for images, _ in seen] == steps
    assert run.images == 5
    assert seen[-1][1] == pytest.approx(1 / solver.epochs)


class Shard:
    """What Ray Train gives a worker, which notes when its passes begin and end."""

    def __init__(self, name, notes):
        self.name, self.notes = name, notes

    def iter_batches(self, **options):
        self.notes.append(f"{self.name} begins")
        yield from Rows().iter_batches(**options)
        self.notes.append(f"{self.name} ends")


@pytest.mark.parametrize("kept", [True, False])
def test_passes_never_overlap_and_kept_validation_needs_but_one(monkeypatch, kept):
    notes: list[str] = []
    images: list[int] = []
    shards = {name: Shard(name, notes) for name in ("train", "val")}
    run = make_run(Solver(batch_size=2, epochs=4, seed=7))
    monkeypatch.setattr(train_loop, "_start", lambda _: run)
    monkeypatch.setattr("ray.train.get_checkpoint", lambda: None)
    monkeypatch.setattr("ray.train.get_dataset_shard", shards.get)
    monkeypatch.setattr(train_loop, "report", lambda run, _: images.append(run.images))
    monkeypatch.setattr(Run, "agreed", lambda _run, mine: mine and kept)  # with another worker
    train_loop._run({"run_uri": RUN})
    assert images == [5, 10, 15, 20]
    passes = [note for note in notes if note.endswith("begins")]
    assert passes.count("train begins") == 4
    assert passes.count("val begins") == (1 if kept else 4)
    assert passes[:2] == ["train begins", "val begins"]
    for begins, ends in zip(notes[::2], notes[1::2], strict=True):
        assert begins.removesuffix("begins") == ends.removesuffix("ends")


def test_an_epoch_is_told_when_its_checkpoint_is_stored(monkeypatch):
    notes: list[str] = []
    run = make_run(Solver(batch_size=2, epochs=2, seed=7))
    run.relay = cast(Relay, SimpleNamespace(say=notes.append))

    def store(run, metrics):
        if run.epoch == 2:
            raise OSError("the disk is full")
        notes.append("stored")

    monkeypatch.setattr(train_loop, "_start", lambda _: run)
    monkeypatch.setattr("ray.train.get_checkpoint", lambda: None)
    monkeypatch.setattr("ray.train.get_dataset_shard", lambda _: Rows())
    monkeypatch.setattr(train_loop, "report", store)
    with pytest.raises(OSError, match="the disk is full"):
        train_loop._run({"run_uri": RUN})
    assert [note[:10] for note in notes] == ["stored", "epoch 1/2:"]


def test_validation_scores_every_task_and_the_history_names_further_ones():
    run = make_run(Solver(precision="fp32"))
    confusions = train_loop.validate(run, PAIRS)
    expected = Confusion(3), Confusion(2)
    for pair in PAIRS:  # image by image, the scores of each task cut out by hand
        with torch.no_grad():
            scores = run.network(TORCHVISION(pair.image)[None])
        expected[0].update(pair.label, scores[0, :3].argmax(0).byte().numpy(), 255)
        expected[1].update(pair.planes["geo"], scores[0, 3:].argmax(0).byte().numpy(), 255)
    for ours, theirs in zip(confusions, expected, strict=True):
        assert (ours.counts == theirs.counts).all()
    metrics = train_loop._metrics(run, [1.5, 0.25], confusions)
    assert metrics["loss"] == 1.75
    assert (metrics["loss_sem"], metrics["loss_geo"]) == (1.5, 0.25)
    assert metrics["mean_iu"] == expected[0].mean_iu
    assert metrics["pixel_accuracy_geo"] == expected[1].pixel_accuracy
    metrics = train_loop._metrics(run, [1.5, 0.25], [confusions[0], Confusion(2)])
    assert metrics["mean_iu_geo"] is metrics["pixel_accuracy_geo"] is None  # all void
    json.dumps(metrics, allow_nan=False)


def test_labels_that_are_all_void_teach_nothing_and_are_refused():
    void = [replace(pair, label=np.full_like(pair.label, 255)) for pair in PAIRS]
    with pytest.raises(InputError, match="no training image has a pixel that is not void"):
        train_loop._train_epoch(make_run(Solver()), iter(void))


def test_sampling_that_leaves_no_pixel_is_named():
    """Of maps of one or two cells it keeps none; with 1, the same images are learned from."""
    train_loop._train_epoch(make_run(Solver()), iter(PAIRS[:1]))
    said = "not void and that --sampling 1e-06 has kept; give a larger --sampling"
    with pytest.raises(InputError, match=said):
        train_loop._train_epoch(make_run(Solver(sampling=1e-6)), iter(PAIRS[:1]))


def test_every_validation_is_of_the_weights_that_there_are():
    """What a pass keeps of weights does not outlive it: torch does not count the fused steps."""
    config = replace(CONFIG, spec=replace(CONFIG.spec, width=1 / 4))  # wide enough for transforms
    solver = Solver(optimizer="adamw", lr=3e-5, loss="mean", precision="fp32")
    run, fresh = make_run(solver, config), make_run(solver, config)
    before = train_loop.validate(run, PAIRS)
    train_loop._train_epoch(run, fetched(Rows()))
    fresh.network.load_state_dict(run.network.state_dict())
    found, wanted = (train_loop.validate(one, PAIRS) for one in (run, fresh))
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours.counts == theirs.counts).all()
    assert (found[0].counts != before[0].counts).any()


def test_a_network_of_hha_images_reads_them_in_the_images_place():
    spec = NetworkSpec(num_classes=3, head="fcn32s", width=1 / 32, fc_width=8)
    config = ModelConfig(
        spec=spec, classes=CONFIG.classes, normalization=NYUD_HHA, image_plane="hha"
    )
    run = make_run(Solver(precision="fp32"), config)
    run.network.eval()
    expected = Confusion(3)
    for pair in PAIRS:
        hha = pair.planes["hha"].astype(np.float32) - np.array(
            [132.431, 94.076, 118.477], np.float32
        )
        with torch.no_grad():
            scores = run.network(torch.from_numpy(hha).movedim(-1, 0)[None])
        expected.update(pair.label, scores[0].argmax(0).byte().numpy(), 255)
    assert (train_loop.validate(run, PAIRS)[0].counts == expected.counts).all()


class Checkpoint:
    """What Ray Train hands over: a directory, and where the run keeps it."""

    def __init__(self, directory):
        self.directory = directory
        self.path = f"/runs/run/{directory.name}"

    @contextmanager
    def as_directory(self):
        yield self.directory


@pytest.fixture
def reported(tmp_path, monkeypatch):
    """Where the checkpoint lies that a run has handed to Ray Train."""
    folder = tmp_path / "c"
    monkeypatch.setattr("ray.train.report", lambda metrics, **_: None)
    monkeypatch.setattr(
        "ray.train.Checkpoint.from_directory", lambda path: shutil.copytree(path, folder)
    )
    return folder


def test_a_resumed_run_keeps_its_moments_and_takes_todays_settings(reported):
    first = make_run(Solver(lr=1e-9, precision="fp32"))
    train_loop._train_epoch(first, fetched(Rows()))
    first.epoch = 1
    report(first, {})
    second = make_run(Solver(lr=1e-12, momentum=0.5, weight_decay=0.25, precision="fp32"))
    assert resume(second, Checkpoint(reported), RUN) == 1
    group = second.optimizer.param_groups[0]
    assert (group["base_lr"], group["momentum"], group["weight_decay"]) == (1e-12, 0.5, 0.25)
    for mine, theirs in zip(second.network.parameters(), first.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        moment = second.optimizer.state[mine]["momentum_buffer"]
        assert torch.equal(moment, first.optimizer.state[theirs]["momentum_buffer"])
    third = make_run(Solver(optimizer="adamw", lr=1e-4))
    with pytest.raises(InputError, match="trained with sgd and cannot go on with adamw"):
        resume(third, Checkpoint(reported), RUN)


@pytest.mark.parametrize("file", ["training_state.pt", "model.safetensors", "config.json"])
def test_a_checkpoint_that_is_cut_or_incomplete_ends_every_attempt_by_name(
    reported, monkeypatch, file
):
    """As Ray Train runs a worker three times: the second attempt has only the first one's word."""
    refused: list[dict[str, str]] = []
    relay = SimpleNamespace(
        say=lambda _: None,
        refuse=refused.append,
        refusal=lambda: refused[-1] if refused else {},
    )
    monkeypatch.setattr("ray.train.get_checkpoint", lambda: Checkpoint(reported))
    monkeypatch.setattr(train_loop, "_start", lambda _: make_run(Solver(lr=1e-9)))
    report(make_run(Solver(lr=1e-9)), {})
    whole = (reported / file).read_bytes()
    damaged = [whole[: len(whole) * tenth // 10] for tenth in range(10)] + [b"{", None]
    for data in damaged:
        if data is None:
            (reported / file).unlink()
        else:
            (reported / file).write_bytes(data)
        refused.clear()
        texts = []
        for _ in range(2):
            with pytest.raises(InputError, match=f"{RUN}/{reported.name}.*{file}") as raised:
                train_loop.run_worker({"relay": relay, "run_uri": RUN})
            texts.append(str(raised.value))
        assert texts[0] == texts[1]
        assert "choose another --name to start anew; best/" in texts[0]
        assert "\n" not in texts[0]
    (reported / file).write_bytes(whole)
    assert resume(make_run(Solver(lr=1e-9)), Checkpoint(reported), RUN) == 0


def test_a_run_that_goes_on_draws_what_it_would_have_drawn(reported, monkeypatch):
    """Order, windows, mirroring, shifts, cells and dropout; the oracle is the run not stopped."""
    monkeypatch.setattr("ray.train.get_dataset_shard", lambda _: Rows())
    config = replace(CONFIG, spec=replace(CONFIG.spec, dropout=0.5))
    solver = Solver(
        epochs=3, lr=1e-3, loss="mean", precision="fp32", crop=(9, 9), jitter=2, sampling=0.5
    )

    def trained(run, until):
        with closing(train_loop._train_pairs(replace(run, shuffle_buffer=4))) as training:
            while run.epoch < until:
                training.allow()
                train_loop._train_epoch(run, training.epoch(run.epoch))
                run.epoch += 1
        return run

    whole = trained(make_run(solver, config), 3)
    report(trained(make_run(solver, config), 1), {})
    second = make_run(solver, config)
    resume(second, Checkpoint(reported), RUN)
    torch.rand(7)  # torch's state is whatever it is
    trained(second, 3)
    for mine, theirs in zip(second.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_no_two_streams_of_random_numbers_are_the_same():
    streams = [
        tuple(generator(seed, epoch, rank, drawn).integers(2**63, size=2))
        for seed, epoch, rank, drawn in itertools.product(range(3), range(3), range(3), Drawn)
    ]
    assert len(set(streams)) == len(streams) == 81


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("later", [torch.contiguous_format, torch.channels_last])
def test_a_run_goes_on_in_another_order_of_memory(reported, optimizer, later):
    """As from a GPU to a CPU. Oracle: torch's usual optimizer, which goes by positions."""
    solver = Solver(optimizer=optimizer, lr=1e-3, loss="mean", precision="fp32")
    first = make_run(solver)
    earlier = {torch.contiguous_format, torch.channels_last} - {later}
    first.network.to(memory_format=earlier.pop())
    train_loop._train_epoch(first, fetched(Rows()))
    report(first, {})
    results = []
    for fused in (True, False):
        run = make_run(solver)
        run.network.to(memory_format=later)
        for group in run.optimizer.param_groups:
            group["fused"] = fused
        resume(run, Checkpoint(reported), RUN)
        for value in run.network.parameters():
            value.grad = torch.zeros_like(value)  # only the moments move the weights
        run.optimizer.step()
        results.append([value.detach().clone() for value in run.network.parameters()])
    start = [value.detach() for value in first.network.parameters()]
    for mine, usual, before in zip(*results, start, strict=True):
        moved = float((usual - before).abs().max())
        torch.testing.assert_close(mine, usual, rtol=0, atol=1e-4 * moved + 1e-9)
    assert any(
        not torch.equal(usual, before) for usual, before in zip(results[1], start, strict=True)
    )
