"""The recipes are those of the papers, and the command line starts from them."""

from __future__ import annotations

import pickle
import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch

from fcn_model import ClassList, build
from jobs import train as train_job
from jobs.recipes import RECIPES, RecipeName
from pipelines.augment import View
from pipelines.batches import collate
from pipelines.decoding import Pair
from pipelines.progress import Relay
from pipelines.rates import for_workers, make_optimizer
from pipelines.sources import Source
from pipelines.train_run import Run
from pipelines.train_settings import TrainConfig
from pipelines.train_start import model_config
from pipelines.train_step import train_step

PROTOTXT: dict[RecipeName, tuple[float, float, int, int, int]] = {
    # lr, momentum, images a step, iterations in thousands, images in the training set
    "voc-fcn32s": (1e-10, 0.99, 1, 100, 8498),
    "voc-fcn16s": (1e-12, 0.99, 1, 100, 8498),
    "voc-fcn8s": (1e-14, 0.99, 1, 100, 8498),
    "voc-fcn8s-atonce": (1e-10, 0.99, 1, 300, 8498),
    "voc-fcn-alexnet": (1e-4, 0.9, 20, 100, 8498),
    "nyud-fcn32s-color": (1e-10, 0.99, 1, 100, 795),
    "nyud-fcn32s-color-d": (1e-10, 0.99, 1, 100, 795),
    "nyud-fcn32s-hha": (1e-10, 0.99, 1, 100, 795),
    "nyud-fcn32s-color-hha": (1e-12, 0.99, 1, 100, 795),
    "siftflow-fcn32s": (1e-10, 0.99, 1, 100, 2486),
    "siftflow-fcn16s": (1e-12, 0.99, 1, 100, 2486),
    "siftflow-fcn8s": (1e-12, 0.99, 1, 100, 2486),
    "pascalcontext-fcn32s": (1e-10, 0.99, 1, 400, 4998),
    "pascalcontext-fcn16s": (1e-12, 0.99, 1, 400, 4998),
    "pascalcontext-fcn8s": (1e-14, 0.99, 1, 400, 4998),
}
"""From the reference's solver.prototxt and solve.py."""

IMAGENET_MEANS = {"voc": 104.00699, "nyud": 116.190, "siftflow": 114.578, "pascalcontext": 104.007}
"""Of blue, from its data layers."""


def narrow(name: RecipeName):
    """The recipe's run on a source of its classes, in a network small enough for a test."""
    recipe = RECIPES[name]
    network = replace(recipe.network, width=1 / 32)
    if "googlenet" not in network.backbone:
        network = replace(network, fc_width=8)
    tasks = {
        task: ClassList(names=tuple(map(str, range(count)))) for task, count in recipe.data.tasks
    }
    classes, *_ = tasks.values()
    source = Source("s", "pairs", classes, (), tasks=dict(list(tasks.items())[1:]))
    config = TrainConfig(storage="s", name="n", network=network, solver=recipe.solver)
    return config, model_config(config, source)


def drawn(counts: dict[str, int]) -> Pair:
    rng = np.random.default_rng(0)
    size = (37, 50)
    labels = {name: rng.integers(0, count, size, dtype=np.uint8) for name, count in counts.items()}
    first, *_ = labels.values()
    first[:5] = 255
    planes: dict[str, np.ndarray] = {
        "depth": rng.integers(0, 9000, size).astype(np.uint16),
        "hha": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
        **labels,
    }
    return Pair("k", rng.integers(0, 256, (*size, 3), dtype=np.uint8), first, planes)


@pytest.mark.parametrize("name", get_args(RecipeName))
def test_the_loss_of_each_task_starts_at_ln_k(name):
    config, model = narrow(name)
    network = build(model.spec)
    run = Run(
        solver=config.solver,
        network=network,
        model=network,
        config=model,
        optimizer=make_optimizer(network, config.solver),
        device=torch.device("cpu"),
        rank=0,
        world=1,
        records=None,
        shuffle_buffer=1,
        relay=Relay(""),
        class_weights=(None,) * len(model.spec.tasks),
    )
    counts = dict(RECIPES[name].data.tasks)
    totals = train_step(run, [collate([View.of(drawn(counts))], model)], 0.0)
    for (loss, weight), classes in zip(totals.tolist(), counts.values(), strict=True):
        assert loss / weight == pytest.approx(np.log(classes), abs=1e-5)


def test_every_recipe_has_the_solver_of_the_reference():
    assert set(RECIPES) == set(get_args(RecipeName))
    own = {"voc-fcn-googlenet", "cvpr-voc-fcn32s", "camvid-fcn8s"}
    assert set(RECIPES) == set(PROTOTXT) | own
    for name, (lr, momentum, images, thousands, records) in PROTOTXT.items():
        recipe = RECIPES[name]
        solver = recipe.solver
        assert (solver.lr, solver.momentum, solver.weight_decay) == (lr, momentum, 5e-4)
        assert solver.batch_size * solver.iter_size == images == solver.images_per_step
        assert solver.loss == ("image-mean" if name == "voc-fcn-alexnet" else "sum")
        assert abs(solver.epochs * records - 1000 * thousands * images) <= records / 2
        assert for_workers(solver, 1) == solver
        assert recipe.source.startswith(name)
        _, model = narrow(name)
        mean = IMAGENET_MEANS[name.split("-")[0]]
        expected = 118.477 if name == "nyud-fcn32s-hha" else mean
        assert expected in model.normalization.mean
    assert RECIPES["voc-fcn8s-atonce"].network.skip_scales == (0.01, 0.0001)


def test_the_options_of_a_recipe_are_its_values_and_every_flag_still_overrides(monkeypatch):
    asked = []
    monkeypatch.setattr(train_job, "open_source", lambda *_, **__: None)
    monkeypatch.setattr(train_job, "ray_session", nullcontext)
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def train(config, *_, **__):
        asked.append(config)
        return SimpleNamespace(checkpoint="c", mean_iu=0.5, epoch=1)

    monkeypatch.setattr("pipelines.training.train", train)
    files = ["--train", "a", "--val", "b", "--storage", "s", "--name", "n"]
    for more in ([], ["--lr", "3", "--head", "fcn16s", "--num-workers", "2"]):
        arguments = ["--recipe", "nyud-fcn32s-color-hha", *files, *more]
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        with pytest.raises(SystemExit) as ended:
            train_job.main()
        assert ended.value.code == 0
    recipe = RECIPES["nyud-fcn32s-color-hha"]
    plain = TrainConfig(storage="s", name="n", network=recipe.network, solver=recipe.solver)
    assert pickle.loads(pickle.dumps(asked[0])) == plain
    assert asked[1] == replace(
        plain,
        network=replace(recipe.network, head="fcn16s"),
        solver=replace(recipe.solver, lr=3.0),
        num_workers=2,
    )


@pytest.mark.parametrize(("name", "code"), [("list", 0), ("voc-fcn9s", 2)])
def test_recipes_can_be_listed_and_an_unknown_one_is_refused(monkeypatch, capsys, name, code):
    monkeypatch.setattr(sys, "argv", ["train.py", "--recipe", name])
    with pytest.raises(SystemExit) as ended:
        train_job.main()
    assert ended.value.code == code
    output = capsys.readouterr()
    for known, recipe in RECIPES.items():
        assert known in output.out + output.err
        assert code or recipe.expected in output.out
