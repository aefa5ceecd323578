"""Counting labels for class weights: exact, however they are cut, once in the life of a run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from fcn_model import ClassList, ModelConfig, NetworkSpec
from fcn_model.class_weights import LabelCounts
from fcn_model.normalize import TORCHVISION
from fcn_model.spec import Task
from pipelines import class_weights, storage
from pipelines.class_weights import COUNTS_FILE, count_labels, count_rows, weights_of_run
from pipelines.datasets.scenes import CLASSES, write_scenes
from pipelines.decoding import Pair
from pipelines.errors import InputError
from pipelines.ingest import rows_table
from pipelines.sources import Source, open_source

CONFIG = ModelConfig(
    spec=NetworkSpec(num_classes=len(CLASSES)), classes=CLASSES, normalization=TORCHVISION
)


@pytest.mark.ray
def test_labels_are_counted_exactly_in_units_of_any_size_and_once(
    ray_session, tmp_path, monkeypatch
):
    write_scenes(str(tmp_path / "scenes"), images=7, seed=1, split="train")
    pixels, image_pixels = np.zeros(len(CLASSES), int), np.zeros(len(CLASSES), int)
    for path in (tmp_path / "scenes/labels").iterdir():
        label = np.asarray(Image.open(path))
        for index in range(len(CLASSES)):
            pixels[index] += (label == index).sum()
            image_pixels[index] += label.size if (label == index).any() else 0
    for records in (2, 256):
        source = open_source(str(tmp_path / "scenes"), unit_records=records)
        counts = count_labels(source, CONFIG)[0]
        assert counts.pixels.tolist() == pixels.tolist()
        assert counts.image_pixels.tolist() == image_pixels.tolist()

    run = storage.parse_uri(str(tmp_path / "run"))
    frequencies = pixels / image_pixels
    expected = [pytest.approx((np.median(frequencies) / frequencies).tolist())]
    assert weights_of_run(run, source, CONFIG, "median-frequency") == expected
    assert storage.stat(storage.join(run, COUNTS_FILE)) is not None
    monkeypatch.setattr(class_weights, "count_labels", None)  # a resumed run does not count again
    assert weights_of_run(run, source, CONFIG, "median-frequency") == expected
    enet = weights_of_run(run, source, CONFIG, "enet")
    assert enet == [pytest.approx((1 / np.log(1.02 + pixels / pixels.sum())).tolist())]


@pytest.mark.ray
def test_a_label_that_cannot_be_used_is_named_before_training(ray_session, tmp_path):
    write_scenes(str(tmp_path / "scenes"), images=2, seed=1, split="x")
    path = tmp_path / "scenes/labels/x-0001.png"
    label = np.asarray(Image.open(path)).copy()
    label[3, 4] = 77
    Image.fromarray(label).save(path)
    with pytest.raises(InputError, match=r"x-0001.*77"):
        count_labels(open_source(str(tmp_path / "scenes")), CONFIG)


def test_every_task_has_counts_of_its_own():
    label = np.array([[0, 1, 255]], np.uint8)
    geo = np.array([[0, 2, 2]], np.uint8)
    image = np.zeros((1, 3, 3), np.uint8)
    table = rows_table([Pair("a", image, label, {"geo": geo})] * 2, ("geo",))
    three = ClassList(names=("sky", "horizontal", "vertical"))
    two = ClassList(names=("a", "b"))
    row = count_rows(table, ["geo"], [two, three]).to_pylist()[0]
    assert row == {
        "pixels": [2, 2, 2, 0, 4],
        "image_pixels": [6, 6, 6, 0, 6],
        "error": "",
    }


def test_counts_that_are_cut_anywhere_or_of_other_classes_are_refused_by_name(tmp_path):
    run, source = storage.parse_uri(str(tmp_path)), Source("unread", "pairs", CLASSES, ())
    file = tmp_path / COUNTS_FILE
    whole = json.dumps([LabelCounts.none(len(CLASSES)).to_dict()])
    other = json.dumps([LabelCounts.none(len(CLASSES) - 1).to_dict()])
    twice = json.dumps([LabelCounts.none(len(CLASSES)).to_dict()] * 2)
    huge = whole.replace("[0,", f"[{2**64},", 1)
    damaged = [whole[:length] for length in range(len(whole))]
    for text in (*damaged, other, twice, huge, "7", "[7]", "{}", '[{"pixels": [1]}]'):
        file.write_text(text)
        with pytest.raises(InputError, match=rf"^{run}/{COUNTS_FILE} is damaged .* another --name"):
            weights_of_run(run, source, CONFIG, "enet")
    file.write_text(whole)
    weights_of_run(run, source, CONFIG, "enet")


def test_no_weights_are_no_counts():
    config = ModelConfig(
        spec=NetworkSpec(num_classes=5, more_tasks=(Task("geo", 5),)),
        classes=CLASSES,
        more_classes=(CLASSES,),
        normalization=TORCHVISION,
    )
    source = Source("unread", "pairs", CLASSES, ())
    assert weights_of_run("unused", source, config, "none") == [None, None]
