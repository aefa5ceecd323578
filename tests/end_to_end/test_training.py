"""Every kind of network of the papers through the whole of training, on files as published."""

from __future__ import annotations

import json

import pytest

from fcn_model import checkpoint
from pipelines import storage
from pipelines.sources import open_source
from pipelines.train_settings import Network, Solver, TrainConfig
from pipelines.training import train
from tests.support import published

pytestmark = pytest.mark.ray

NARROW = Network(head="fcn32s", width=1 / 32, fc_width=8)


def test_two_tasks_are_trained_by_two_workers_and_scored_apart(ray_session, tmp_path):
    made = published.siftflow(tmp_path / "data")
    source = open_source(str(tmp_path / "data"), split=made.split, unit_records=1)
    config = TrainConfig(
        storage=str(tmp_path / "runs"),
        name="sift",
        network=NARROW,
        solver=Solver(
            epochs=4,  # from the third one on rows are fetched while the network is validated
            iter_size=2,
            images_per_step=1,
            class_weights="enet",
            sampling=0.5,
            jitter=32,
        ),
        num_workers=2,
    )
    lines: list[str] = []
    history = train(config, source, source, progress=lines.append).history
    assert [entry["images"] for entry in history] == [2, 4, 6, 8]
    entry = history[-1]
    assert entry["loss"] == pytest.approx(entry["loss_sem"] + entry["loss_geo"])
    assert {"mean_iu", "mean_iu_geo", "pixel_accuracy", "pixel_accuracy_geo"} <= set(entry)
    # .99 ** 4, and 4 (1 - .99 ** 4) / .01 times 1e-10
    said = "4 images a step instead of 1: lr 1.576e-09, momentum 0.9606"
    assert said in lines
    counts = json.loads((tmp_path / "runs/sift/label_counts.json").read_text())
    for one, labels in zip(
        counts,
        (made.labels.values(), [planes["geo"] for planes in made.planes.values()]),
        strict=True,
    ):
        assert sum(one["pixels"]) == sum(int((label != 255).sum()) for label in labels)


def test_planes_reach_the_network(ray_session, tmp_path):
    made = published.nyud(tmp_path / "data")
    source = open_source(str(tmp_path / "data"), split=made.split)
    config = TrainConfig(
        storage=str(tmp_path / "runs"),
        name="nyud",
        network=Network(head="fcn32s", width=1 / 32, fc_width=8, inputs="color-hha"),
        solver=Solver(epochs=1),
    )
    result = train(config, source, source, progress=lambda _: None)
    assert result.history[0]["images"] == 2
    _, model = checkpoint.load(storage.local_path(result.checkpoint))
    assert model.spec.in_channels == 6
    assert [name for name, _ in model.planes] == ["hha"]
