"""Masks and labels to scores, against numbers from elsewhere."""

from __future__ import annotations

import dataclasses
import io
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torchmetrics.classification import MulticlassJaccardIndex

from fcn_model import ClassList, Confusion
from pipelines import score_tables, storage
from pipelines.errors import IncompleteError, InputError
from pipelines.evaluation import Evaluation, evaluate
from pipelines.label_index import index_labels
from pipelines.schemas import MASKS
from pipelines.scoring import ImageScore, read_mask_keys, score_part
from pipelines.sources import open_source
from tests.support.scored import CLASSES, labelled, write_part

GOLDEN = [[50, 2, 0, 3], [4, 30, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
"""Computed by hand from the reference's rules; the scores below come with it."""


def _evaluation(confusion, images_, classes=CLASSES):
    return Evaluation("m", "l", classes, confusion, tuple(images_), 0, "digest", "net")


def test_the_golden_table_gives_the_published_scores_through_the_tables():
    classes = ClassList(names=("a", "b", "c", "d"))
    confusion = Confusion.from_counts(np.array(GOLDEN))
    image = ImageScore.of("x", confusion, 7)
    made = score_tables.tables(_evaluation(confusion, [image], classes))
    summary = made["summary"].to_pylist()[0]
    expected = {
        "pixel_accuracy": 0.888889,
        "mean_accuracy": 0.883117,
        "mean_iu": 0.552756,
        "mean_iu_gt_present": 0.829134,
        "mean_iu_absent_as_zero": 0.414567,
        "frequency_weighted_iu": 0.833206,
    }
    assert {name: round(summary[name], 6) for name in expected} == expected
    assert (summary["n_pixels"], summary["n_void_pixels"]) == (90, 7)
    ius = [row["iu"] for row in made["per_class"].to_pylist()]
    assert ius[:2] == pytest.approx([0.847458, 0.810811], abs=1e-6)
    assert math.isnan(ius[2])
    assert ius[3] == 0
    per_image = made["per_image"].to_pylist()[0]  # one image: its scores are the data set's
    assert per_image["mean_iu"] == pytest.approx(summary["mean_iu"], abs=1e-12)
    assert per_image["pixel_accuracy"] == pytest.approx(summary["pixel_accuracy"], abs=1e-12)
    table = np.zeros((4, 4), int)
    for row in made["confusion"].to_pylist():
        table[row["label"], row["mask"]] = row["pixels"]
    assert table.tolist() == GOLDEN


def test_scores_of_random_masks_agree_with_torchmetrics(tmp_path):
    root = storage.parse_uri(str(tmp_path))
    masks = labelled(storage.join(root, "data"))
    part = write_part(storage.join(root, "masks"), 0, [(k, m) for k, (_, m) in masks.items()])
    source = open_source(storage.join(root, "data"))
    places = index_labels(source)
    wanted = [(places[key].unit, places[key].row) for key in masks]
    scores = score_part(part, source.units, wanted, CLASSES)
    metric = MulticlassJaccardIndex(3, average="macro", ignore_index=255)
    for label, mask in masks.values():
        metric.update(torch.from_numpy(mask.astype(int)), torch.from_numpy(label.astype(int)))
    assert scores.confusion.mean_iu == pytest.approx(float(metric.compute()), abs=1e-6)
    assert [image.void_pixels for image in scores.images] == [4] * len(masks)
    for image, (label, mask) in zip(scores.images, masks.values(), strict=True):
        alone = Confusion(3)
        alone.update(label, mask, CLASSES.void_id)
        assert image.mean_iu == pytest.approx(alone.mean_iu, abs=1e-12)


def test_a_file_that_is_no_part_is_named(tmp_path):
    uri = storage.parse_uri(str(tmp_path / "part.parquet"))
    storage.create(uri, b"PAR1 junk PAR1")
    ref = storage.stat(uri)
    assert ref is not None
    with pytest.raises(InputError, match=uri):
        read_mask_keys(ref)


def test_a_key_that_labels_two_images_cannot_be_joined(tmp_path):
    root = storage.parse_uri(str(tmp_path))
    labelled(storage.join(root, "data"), count=2)
    source = open_source(storage.join(root, "data"))
    doubled = dataclasses.replace(source, units=source.units + source.units)
    with pytest.raises(InputError, match=r"'i0' labels two images"):
        index_labels(doubled)


@pytest.mark.ray
def test_missing_masks_error_rows_and_unlabelled_masks_are_counted(ray_session, tmp_path):
    root = storage.parse_uri(str(tmp_path))
    masks = labelled(storage.join(root, "data"), count=6)
    folder = storage.join(root, "masks")
    rows = [(key, mask) for key, (_, mask) in masks.items()]
    write_part(folder, 0, rows[:2], errors=("i1",))
    write_part(folder, 1, [*rows[2:5], ("stray", rows[0][1])])
    source = open_source(storage.join(root, "data"), unit_records=4)
    with pytest.raises(IncompleteError, match=r"1 of 6 labels.*i5"):
        evaluate(folder, source)
    result = evaluate(folder, source, allow_missing=True)
    statuses = {image.key: image.status for image in result.images}
    assert statuses == {
        **dict.fromkeys(["i0", "i2", "i3", "i4"], "ok"),
        "i1": "error",
        "stray": "no_label",
    }
    expected = Confusion(3)
    for key in ("i0", "i2", "i3", "i4"):
        expected.update(masks[key][0], masks[key][1], CLASSES.void_id)
    assert (result.confusion.counts == expected.counts).all()
    assert (result.errors, result.missing) == (1, 1)

    write_part(folder, 2, rows[5:], model="another")
    with pytest.raises(InputError, match="2 models"):
        evaluate(folder, source)


@pytest.mark.ray
def test_masks_of_other_images_show_a_key_of_both_sides(ray_session, tmp_path):
    root = storage.parse_uri(str(tmp_path))
    labelled(storage.join(root, "data"), count=1)
    folder = storage.join(root, "masks")
    write_part(folder, 0, [("elsewhere.jpg", np.zeros((6, 9), np.uint8))])
    with pytest.raises(InputError, match=r"'elsewhere.jpg'.*'i0'"):
        evaluate(folder, open_source(storage.join(root, "data")))


@pytest.mark.ray
def test_masks_that_no_label_fits_are_refused_with_the_first_reason(ray_session, tmp_path):
    root = storage.parse_uri(str(tmp_path))
    labelled(storage.join(root, "data"), count=2)
    folder = storage.join(root, "masks")
    write_part(folder, 0, [(key, np.zeros((6, 8), np.uint8)) for key in ("i0", "i1")])
    with pytest.raises(InputError, match=r"none of 2 masks .* i0: its label is 6×9, its mask 6×8"):
        evaluate(folder, open_source(storage.join(root, "data")))


@pytest.mark.ray
def test_masks_of_other_classes_are_not_compared(ray_session, tmp_path):
    root = storage.parse_uri(str(tmp_path))
    labelled(storage.join(root, "data"), count=1)
    storage.replace(f"{root}/data/classes.json", b'{"names": ["car", "road", "sky"]}')
    folder = storage.join(root, "masks")
    write_part(folder, 0, [("i0", np.zeros((6, 9), np.uint8))])
    with pytest.raises(InputError, match=r"'sky', 'road', 'car'.*'car', 'road', 'sky'"):
        evaluate(folder, open_source(storage.join(root, "data")))


def test_a_part_with_a_column_of_pickled_objects_is_refused_and_runs_nothing(tmp_path):
    from ray.data._internal.object_extensions.arrow import ArrowPythonObjectArray

    class Attack:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    columns = {name: pa.array([""]) for name in MASKS.names}
    columns["key"] = ArrowPythonObjectArray.from_objects([Attack()])
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    uri = storage.parse_uri(str(tmp_path / "part.parquet"))
    storage.create(uri, file.getvalue())
    ref = storage.stat(uri)
    assert ref is not None
    with pytest.raises(InputError, match="'key'"):
        read_mask_keys(ref)
    assert not (tmp_path / "ran").exists()
