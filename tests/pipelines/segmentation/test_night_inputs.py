"""Whole nights over input that changes, breaks or comes back, and with models that are no good.

Rows 18, 24, 25 and 36 of docs/failures.md, and what is done again on demand. No Ray: see
`support/nights.py`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fcn_model import ModelConfig, checkpoint
from fcn_model.normalize import TORCHVISION
from pipelines import storage
from pipelines.datasets import scenes
from pipelines.errors import IncompleteError, NotFoundError, NotPublishedError, StoreError
from pipelines.masks import head, reader
from pipelines.masks.head import Head
from tests.support.made import picture, png, tar
from tests.support.networks import random_network
from tests.support.nights import World, expected, mask
from tests.support.tiny import save_checkpoint


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Checkpoints by name; of two good models, one that gives no numbers, one of a single class."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("good", "other"), start=1):
        save_checkpoint(folder / name, seed=seed)
    for name, spoilt, value in (("nan", "conv1_1", torch.nan), ("constant", "score", 0.0)):
        network = random_network("fcn8s", num_classes=len(scenes.CLASSES))
        with torch.no_grad():
            for label, parameter in network.named_parameters():
                if label.startswith(spoilt):
                    parameter.fill_(value)
        config = ModelConfig(spec=network.spec, classes=scenes.CLASSES, normalization=TORCHVISION)
        checkpoint.save(folder / name, network, config)
    return folder


@pytest.fixture
def anywhere(place, models, stage):
    """A world on a disk or in a store."""
    return World(place, models / "good")


@pytest.fixture
def world(tmp_path, models, stage):
    return World(storage.parse_uri(str(tmp_path)), models / "good")


@pytest.fixture
def withheld(monkeypatch):
    """Names of images that the store does not give away, to be filled by the test."""
    read = storage.read_bytes
    names: set[str] = set()

    def fail(uri, **pinned):
        if uri.rsplit("/", 1)[1] in names:
            raise StoreError(f"{uri}: SlowDown", transient=True)
        return read(uri, **pinned)

    monkeypatch.setattr(storage, "read_bytes", fail)
    return names


def test_an_image_that_changes_or_goes_during_the_night_is_an_error_row_until_it_is_done_again(
    anywhere, stage, models
):
    world = anywhere
    for seed in range(6):
        world.put(f"{seed}.png", seed)

    def meddle(moment, row):
        if moment == "read" and "0.png" in row.planned.identity:
            world.put("1.png", 11)
        if moment == "read" and "2.png" in row.planned.identity:
            world.delete(storage.join(world.archive, "3.png"))
        if moment == "commit" and "4.png" in row.planned.identity:
            world.put("5.png", 15)  # too late: it was read

    stage.before = meddle
    result = world.night()
    stage.before = lambda *_: None
    assert result.complete
    assert result.published
    first = world.rows()
    kinds = {key: row["error_kind"] for key, row in first.items()}
    assert kinds == dict.fromkeys(["0.png", "2.png", "4.png", "5.png"], "") | {
        "1.png": "changed",
        "3.png": "missing",
    }
    assert np.array_equal(mask(first["5.png"]), expected(models / "good", 5))
    assert world.wrong() == {"outdated": 2, "gone": 1}

    with pytest.raises(IncompleteError, match=r"^2 units changed .* --replace-changed"):
        world.night()
    assert world.rows() == first

    result = world.night(replace_changed=True)
    assert (result.complete, result.published, result.snapshot) == (True, True, 2)
    second = world.rows()
    for key, seed in {"1.png": 11, "5.png": 15}.items():
        assert np.array_equal(mask(second[key]), expected(models / "good", seed))
    kept = ["0.png", "2.png", "3.png", "4.png"]
    assert {key: second[key] for key in kept} == {key: first[key] for key in kept}
    assert world.wrong() == {"stray": 2, "gone": 1}
    assert world.rows(sequence=1) == first
    stage.tried.clear()
    assert world.night(replace_changed=True, retry_errors=True).snapshot == 2
    assert stage.tried == []


def test_links_that_lead_nowhere_are_error_rows_until_there_is_something(world):
    world.put("0.png", 0)
    folder = storage.local_path(world.archive)
    for name, target in (("circle", "circle.png"), ("dangling", "nothing.png")):
        (folder / f"{name}.png").symlink_to(target)
    assert world.night().complete
    rows = world.rows()
    kinds = {key: row["error_kind"] for key, row in rows.items()}
    assert kinds == {"0.png": "", "circle.png": "missing", "dangling.png": "missing"}
    assert world.wrong() == {}
    (folder / "circle.png").unlink()
    world.put("circle.png", 1)
    assert world.night(retry_errors=True, replace_changed=True).complete
    assert world.rows()["circle.png"]["status"] == "ok"


def test_a_tar_that_changes_during_the_night_has_no_part_until_the_next(world, stage, models):
    for name in "abc":
        world.put(f"{name}.tar", shard(name, seed=ord(name)))

    def meddle(moment, row):
        if moment == "read" and row.planned.identity.endswith("b.tar"):
            world.put("b.tar", shard("b", seed=7))

    stage.before = meddle
    with pytest.raises(
        IncompleteError, match=r"^1 of 3 units could not be done: tar .*b\.tar.*Changed"
    ):
        world.night()
    assert world.published() == 1
    assert {key[0] for key in world.rows()} == {"a", "c"}
    stage.before = lambda *_: None
    stage.tried.clear()
    assert world.night().complete
    assert [identity[-5:] for identity in stage.tried] == ["b.tar"]
    rows = world.rows()
    assert sorted(rows) == ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert np.array_equal(mask(rows["b0"]), expected(models / "good", 7))
    assert world.wrong() == {}


def shard(name, seed):
    """A tar of two images."""
    return tar({f"{name}{index}.png": png(picture(seed + index)) for index in range(2)})


def test_a_broken_shard_is_tried_in_three_nights_and_again_when_it_was_put_right(world, stage):
    whole = shard("b", seed=3)
    world.put("a.tar", shard("a", seed=1))
    world.put("b.tar", whole[:700])
    for night in (1, 2, 3):
        stage.tried.clear()
        with pytest.raises(
            IncompleteError, match=r"1 of 2 units could not be done: .*b\.tar"
        ) as told:
            world.night()
        assert len(stage.tried) == (2 if night == 1 else 1)
    assert "parked" in str(told.value)
    assert set(world.rows()) == {"a0", "a1"}
    for parked, tried in ((False, 0), (True, 1)):
        stage.tried.clear()
        with pytest.raises(IncompleteError, match=r"parked.*") as told:
            world.night(retry_parked=parked)
        assert len(stage.tried) == tried
    assert world.wrong() == {"lost": 1, "missing": 1}
    world.put("b.tar", whole)
    assert world.night().complete
    assert set(world.rows()) == {"a0", "a1", "b0", "b1"}
    assert world.wrong() == {}


def test_errors_of_a_store_are_done_again_on_demand_and_each_record_counts_once(
    world, stage, withheld
):
    for seed in range(4):
        world.put(f"{seed}.png", seed)
    withheld.add("1.png")
    assert world.night().complete
    assert len(stage.tried) == 3, "a unit that met a failing store is tried once more"
    first = world.rows()
    assert (first["1.png"]["error_kind"], first["1.png"]["transient"]) == ("store", True)
    stage.tried.clear()
    assert world.night().snapshot == 1
    assert stage.tried == []
    with pytest.raises(IncompleteError, match=r"1\.png: SlowDown"):
        world.night(retry_errors=True)
    assert world.rows() == first
    withheld.clear()
    assert world.night(retry_errors=True).snapshot == 2
    rows = world.rows()
    assert np.array_equal(mask(rows["1.png"]), expected(world.checkpoint, 1))
    assert {**rows, "1.png": None} == {**first, "1.png": None}
    newest = world.newest(world.night().generation)
    assert sorted(part.name.retry for part in newest.parts) == [0, 1]
    assert world.wrong() == {"stray": 1}
    stage.tried.clear()
    assert world.night(retry_errors=True).snapshot == 2
    assert stage.tried == []


def test_a_retry_that_was_given_up_is_named_and_its_old_part_stays(world, stage, withheld):
    for seed in range(4):
        world.put(f"{seed}.png", seed)
    withheld.add("1.png")
    generation = world.night().generation
    before, parts = world.rows(), world.newest(generation).parts
    for what in ["could not be done: .*1.png"] * 3 + ["are parked: .*; --retry-parked tries"] * 2:
        stage.tried.clear()
        with pytest.raises(IncompleteError, match=rf"^1 of 2 units {what}"):
            world.night(retry_errors=True)
        assert len(stage.tried) == (0 if "parked" in what else 2)
        assert (world.rows(), world.newest(generation).parts) == (before, parts)
    withheld.clear()
    assert world.night().complete, "a retry that was not asked for is not missed"
    result = world.night(retry_errors=True, retry_parked=True)
    assert (result.complete, result.records, result.error_rows) == (True, 4, 0)
    assert np.array_equal(mask(world.rows()["1.png"]), expected(world.checkpoint, 1))


@pytest.mark.parametrize(
    ("model", "limits", "fault"),
    [
        ("nan", {}, r"4 images with non-finite scores of 4 \(100.0%\), at most 1.0%"),
        ("constant", {"max_constant_rate": 0.5}, r"4 masks of one class of 4"),
    ],
)
def test_a_broken_model_is_not_published_however_often_it_is_tried(
    world, stage, models, model, limits, fault
):
    for seed in range(4):
        world.put(f"{seed}.png", seed)
    good = world.night()
    before = world.rows()
    for again in (False, True):
        stage.tried.clear()
        with pytest.raises(NotPublishedError, match=fault):
            world.night(checkpoint=str(models / model), **limits)
        assert len(stage.tried) == (0 if again else 2)
        assert head.read(world.uri) == Head(generation=good.generation, sequence=1)
        assert world.rows() == before
    assert len(world.objects("_fcn/snap")) == 1
    assert world.wrong() == {}
    if limits:
        assert world.night(checkpoint=str(models / model)).published, "where none is asked for"


def test_a_night_of_too_many_errors_is_kept_and_published_when_more_are_allowed(world, stage):
    for seed in range(3):
        world.put(f"{seed}.png", seed)
    world.put("broken.png", b"no image")
    with pytest.raises(NotPublishedError, match=r"1 error rows of 4 \(25.0%; 1 not_an_image\)"):
        world.night(max_error_rate=0.2)
    with pytest.raises(NotFoundError, match="nothing"):
        reader.open_masks(world.uri)
    parts = world.objects("data")
    stage.tried.clear()
    assert world.night(max_error_rate=0.25).published
    assert stage.tried == []
    assert world.objects("data") == parts
    assert sum(row["status"] == "error" for row in world.rows().values()) == 1
    assert world.wrong() == {}


def test_another_model_is_published_when_it_covers_all_and_can_be_rolled_back(world, stage, models):
    for name in "abc":
        world.put(f"{name}.tar", shard(name, seed=ord(name)))
    old = world.night()
    before = world.rows()

    def meddle(moment, row):
        if moment == "read" and row.planned.identity.endswith("b.tar"):
            world.put("b.tar", shard("b", seed=ord("b")) + bytes(512))

    stage.before = meddle
    with pytest.raises(IncompleteError, match=r"b\.tar"):
        world.night(checkpoint=str(models / "other"))
    assert world.rows() == before
    stage.before = lambda *_: None
    new = world.night(checkpoint=str(models / "other"))
    assert (new.published, new.snapshot) == (True, 2)
    after = world.rows()
    assert after.keys() == before.keys()
    assert np.array_equal(mask(after["a0"]), expected(models / "other", ord("a")))
    assert not np.array_equal(mask(after["a0"]), mask(before["a0"]))
    assert world.wrong(generation=new.generation) == {}

    back = Head(generation=old.generation, sequence=1, held=True)
    assert head.publish(world.uri, back) == set()
    assert world.rows() == before
    stays = world.night(checkpoint=str(models / "other"))
    assert not stays.published
    assert "--hold" in stays.unpublished_because
    assert world.rows() == before
    assert world.wrong() == {"outdated": 2}
