"""The whole way on S3 and on plain folders, by the same calls, in one Ray session."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import time

import numpy as np
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from PIL import Image

from fcn_model import Confusion, load_segmenter
from pipelines import images, ingest, storage
from pipelines.datasets.scenes import CLASSES, write_scenes
from pipelines.errors import IncompleteError, InputError
from pipelines.evaluation import evaluate
from pipelines.prepare import prepare
from pipelines.score_tables import write_tables
from pipelines.segmentation.night import segment
from pipelines.segmentation.settings import SegmentConfig
from pipelines.sources import Source, open_source
from pipelines.train_settings import Network, Solver, TrainConfig
from pipelines.training import train
from tests.support.tiny import save_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.s3]


@pytest.fixture(params=["folders", "s3"])
def root(request, tmp_path, s3):
    return s3.uri() if request.param == "s3" else storage.parse_uri(str(tmp_path))


def _quiet(*_):
    pass


def _table(folder):
    files = [ref for ref in storage.list_objects(folder) if ref.uri.endswith(".parquet")]
    tables = [pq.read_table(io.BytesIO(storage.read_bytes(ref.uri))) for ref in files]
    return [row for table in tables for row in table.to_pylist()]


@pytest.fixture
def seeds(monkeypatch):
    """Those of the orders in which data sets are read."""
    asked = []
    rows = ingest.labelled_rows

    def noted(source, *, shuffle_seed=None, **more):
        asked.append(shuffle_seed)
        return rows(source, shuffle_seed=shuffle_seed, **more)

    monkeypatch.setattr(ingest, "labelled_rows", noted)
    return asked


def check_run_record(output: str, source: Source, called: float) -> None:
    """Of an output's only run, which began at ``called``: its first part, and when it was where."""
    (ref,) = storage.list_objects(storage.join(output, "_fcn", "run"))
    record = json.loads(storage.read_bytes(ref.uri))
    assert record["first_part"]["records"] in {unit.records for unit in source.units}
    assert record["first_part"]["seconds"].keys() <= record["stage_seconds"].keys()
    reached = record["reached"]
    assert list(reached) == ["planned", "first part", "worked off", "settled"]
    times = [called - 1, *reached.values(), time.time() + 1]
    assert times == sorted(times)


def test_what_every_job_says_follows_from_what_the_one_before_wrote(ray_session, root, seeds):
    workers = 2 if storage.is_s3(root) else 1  # once each: a worker takes seconds to start
    shards = {}
    for split, count in (("train", 11), ("val", 5)):
        raw = storage.join(root, "raw", split)
        write_scenes(raw, images=count, seed=7, split=split)
        shards[split] = prepare(
            open_source(raw), storage.join(root, split), shard_records=4, on_progress=_quiet
        ).uri
    train_source, val_source = (open_source(shards[split]) for split in ("train", "val"))

    def run(epochs):
        config = TrainConfig(
            storage=storage.join(root, "runs"),
            name="tiny",
            network=Network(width=1 / 16, fc_width=16),
            solver=Solver(
                epochs=epochs, batch_size=2, optimizer="adamw", lr=1e-3, loss="mean", mirror=True
            ),
            num_workers=workers,
        )
        return train(config, train_source, val_source, progress=_quiet)

    trained = run(1)
    assert [entry["images"] for entry in trained.history] == [11]  # does not split evenly
    if workers == 2:
        first, trained = trained, run(2)
        assert seeds == [1337, None, 1338, None]  # its order is not that of the first epoch again
        assert trained.history[: trained.resumed_from] == first.history
        assert [entry["images"] for entry in trained.history] == [11, 22]
        assert trained.mean_iu == max(entry["mean_iu"] for entry in trained.history)

    config = SegmentConfig(checkpoint=trained.checkpoint, output=storage.join(root, "out"))
    called = time.time()
    done = segment(config, val_source, progress=_quiet)
    assert (done.records, done.errors, done.units) == (5, 0, len(val_source.units))
    check_run_record(storage.join(root, "out"), val_source, called)
    before = {ref.uri: ref for ref in storage.list_objects(done.masks)}
    again = segment(config, val_source, progress=_quiet)
    assert again.already == again.units
    assert {ref.uri: ref for ref in storage.list_objects(done.masks)} == before

    evaluation = evaluate(done.masks, val_source)
    write_tables(evaluation, storage.join(root, "tables"))
    summary = pq.read_table(
        io.BytesIO(storage.read_bytes(storage.join(root, "tables", "summary.parquet")))
    ).to_pylist()[0]
    confusion = Confusion(len(CLASSES))  # by another way: the generated labels, mask by mask
    labels = {row["key"]: row["label"]["bytes"] for row in _table(shards["val"]) if "label" in row}
    for row in _table(done.masks):
        mask = np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"])))
        assert mask.shape == (row["height"], row["width"])
        assert np.bincount(mask.ravel(), minlength=5).tolist() == row["class_pixels"]
        confusion.update(images.decode_label(labels[row["key"]]), mask, CLASSES.void_id)
    assert summary["mean_iu"] == pytest.approx(confusion.mean_iu, abs=1e-12)
    assert summary["n_pixels"] == confusion.counts.sum()


def test_every_record_of_an_archive_is_a_mask_or_an_error_row(ray_session, root, tmp_path):
    archive, checkpoint = storage.join(root, "archive"), tmp_path / "checkpoint"
    model = save_checkpoint(checkpoint)
    segmenter = load_segmenter(checkpoint)
    rng = np.random.default_rng(0)
    expected = {}
    for index, size in enumerate([(1, 1), (33, 97), (64, 48), (60, 45), (64, 48), (7, 200)]):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        key = f"deep/{index}.png"
        storage.create(storage.join(archive, key), file.getvalue())
        expected[key] = segmenter(pixels)
    broken = {"empty.jpg": b"", "cut.png": file.getvalue()[:100], "text.jpg": b"not an image"}
    for key, data in broken.items():
        storage.create(storage.join(archive, key), data)

    config = SegmentConfig(checkpoint=str(checkpoint), output=storage.join(root, "out"))
    result = segment(config, open_source(archive, unit_records=4), progress=_quiet)
    assert (result.records, result.errors, result.units) == (9, 3, 3)
    rows = {row["key"]: row for row in _table(result.masks)}
    assert set(rows) == set(expected) | set(broken)
    for key, mask in expected.items():
        stored = np.asarray(Image.open(io.BytesIO(rows[key]["mask"]["bytes"])))
        assert (stored == mask).all(), key
        assert rows[key]["model"] == model.digest
    for key in broken:
        assert rows[key]["status"] == "error"
        assert rows[key]["mask"] is None
        assert rows[key]["error_kind"]
        assert rows[key]["error"]

    storage.create(storage.join(archive, "a-late-arrival.png"), file.getvalue())
    later = segment(config, open_source(archive, unit_records=4), progress=_quiet)
    assert (later.already, later.units, later.records) == (3, 4, 10)
    assert len({row["uri"] for row in _table(result.masks)}) == 10

    storage.replace(storage.join(archive, "deep/0.png"), file.getvalue())
    with pytest.raises(IncompleteError, match="changed since they were segmented"):
        segment(config, open_source(archive, unit_records=4), progress=_quiet)
    assert len(_table(result.masks)) == 10


def test_tars_are_segmented_and_trained_on_like_shards(ray_session, tmp_path):
    write_scenes(str(tmp_path / "raw"), images=4, seed=1, split="x")
    tars = tmp_path / "tars"
    tars.mkdir()
    with tarfile.open(tars / "a.tar", "w") as tar:
        for file in sorted((tmp_path / "raw").glob("*/*")):
            tar.add(file, file.name)
    shutil.copy(tmp_path / "raw/classes.json", tars)
    save_checkpoint(tmp_path / "checkpoint")
    source, raw = open_source(str(tars)), open_source(str(tmp_path / "raw"))
    tables = {}
    for name, given in (("tar", source), ("raw", raw)):
        config = SegmentConfig(
            checkpoint=str(tmp_path / "checkpoint"), output=str(tmp_path / f"out-{name}")
        )
        result = segment(config, given, progress=_quiet)
        assert (result.records, result.errors) == (4, 0)
        tables[name] = {row["key"]: row["mask"]["bytes"] for row in _table(result.masks)}
    assert tables["tar"] == tables["raw"]
    training = TrainConfig(
        storage=str(tmp_path / "runs"),
        name="tar",
        network=Network(width=1 / 16, fc_width=16),
        solver=Solver(epochs=1, crop=(64, 64), loss="mean", lr=1e-3, momentum=0.9),
    )
    assert train(training, source, source, progress=_quiet).history[0]["images"] == 4


def test_a_unit_that_cannot_be_read_is_named_and_the_others_are_kept(ray_session, root, tmp_path):
    save_checkpoint(tmp_path / "checkpoint")
    write_scenes(storage.join(root, "raw"), images=4, seed=1, split="x")
    shards = prepare(
        open_source(storage.join(root, "raw")),
        storage.join(root, "shards"),
        shard_records=2,
        on_progress=_quiet,
    ).uri
    source = open_source(shards)
    victim = source.units[0].objects[0].uri
    data = bytearray(storage.read_bytes(victim))
    data[len(data) // 2] ^= 1  # within the images
    storage.replace(victim, bytes(data))
    source = open_source(shards)
    config = SegmentConfig(
        checkpoint=str(tmp_path / "checkpoint"), output=storage.join(root, "out")
    )
    with pytest.raises(IncompleteError, match=victim):
        segment(config, source, progress=_quiet)
    folder = next(
        ref.uri.rsplit("/", 1)[0] for ref in storage.list_objects(storage.join(root, "out"))
    )
    assert len(_table(folder)) == 2


def test_masks_open_as_images_in_hugging_face_datasets_and_as_plain_parquet(ray_session, tmp_path):
    import datasets

    save_checkpoint(tmp_path / "checkpoint")
    write_scenes(str(tmp_path / "raw"), images=2, seed=1, split="x")
    (tmp_path / "raw/images/broken.jpg").write_bytes(b"")
    config = SegmentConfig(checkpoint=str(tmp_path / "checkpoint"), output=str(tmp_path / "out"))
    result = segment(
        config, open_source(str(tmp_path / "raw/images"), layout="archive"), progress=_quiet
    )
    folder = storage.local_path(result.masks)
    loaded = datasets.load_dataset(
        "parquet", data_dir=str(folder.parent), split="train", cache_dir=str(tmp_path / "cache")
    )
    masks = {row["key"]: row["mask"] for row in loaded}
    assert masks["broken.jpg"] is None
    table = pads.dataset(folder.parent).to_table()  # as the README has it
    for row in table.to_pylist():
        if row["status"] == "ok":
            mask = np.asarray(masks[row["key"]])
            assert mask.shape == (row["height"], row["width"])
            assert np.bincount(mask.ravel(), minlength=5).tolist() == row["class_pixels"]
    record = next((tmp_path / "out/_fcn/run").iterdir())
    assert json.loads(record.read_text())["result"]["records"] == 3


def test_a_label_outside_the_class_list_ends_training_and_names_the_image(ray_session, tmp_path):
    write_scenes(str(tmp_path / "raw"), images=3, seed=1, split="x")
    name = "x-0001"
    label = np.asarray(Image.open(tmp_path / f"raw/labels/{name}.png")).copy()
    label[3, 4] = 77
    Image.fromarray(label).save(tmp_path / f"raw/labels/{name}.png")
    source = open_source(str(tmp_path / "raw"))
    config = TrainConfig(
        storage=str(tmp_path / "runs"), name="bad", network=Network(width=1 / 16, fc_width=16)
    )
    with pytest.raises(InputError, match=rf"{name}.*77"):
        train(config, source, source, progress=_quiet)
