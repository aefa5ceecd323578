"""Masks that cannot be compared with their labels: a status, a reason, and no count."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fcn_model import Confusion
from pipelines import images, score_tables, storage
from pipelines.errors import InputError
from pipelines.evaluation import Evaluation
from pipelines.label_index import index_labels
from pipelines.records import Record
from pipelines.scoring import score_part
from pipelines.shards import write_shard
from pipelines.sources import open_source
from tests.support import made
from tests.support.scored import CLASSES, labelled, write_part


def _statuses(score):
    return {image.key: (image.status, image.reason) for image in score.images}


def test_what_cannot_be_compared_has_a_status_and_a_reason_and_counts_for_nothing(tmp_path):
    root = storage.parse_uri(str(tmp_path))
    masks = labelled(storage.join(root, "data"), count=8)
    labels = f"{root}/data/labels"
    wrong = masks["i1"][0].copy()
    wrong[1, :3] = 21
    small = images.encode_label(np.zeros((6, 8), np.uint8), CLASSES)
    files = {
        "i1": made.png(wrong),
        "i2": small,
        "i3": b"",
        "i4": made.jpg(np.zeros((6, 9), np.uint8)),
        "i5": made.png(np.zeros((6, 9, 3), np.uint8)),
        "i6": images.encode_label(masks["i6"][0], CLASSES)[:-30],
    }
    for key, data in files.items():
        storage.replace(f"{labels}/{key}.png", data)
    part = write_part(storage.join(root, "masks"), 0, [(k, m) for k, (_, m) in masks.items()])
    source = open_source(storage.join(root, "data"))
    places = index_labels(source)
    wanted = [(places[key].unit, places[key].row) for key in masks]
    score = score_part(part, source.units, wanted, CLASSES)
    found = _statuses(score)
    assert {key: status for key, (status, _) in found.items()} == {
        **dict.fromkeys(["i0", "i7"], "ok"),
        **dict.fromkeys(["i1", "i3", "i4", "i5", "i6"], "bad_label"),
        "i2": "size_mismatch",
    }
    assert "holds ids 21 (3 pixels); allowed are 0 to 2" in found["i1"][1]
    assert found["i2"][1] == "its label is 6×8, its mask 6×9 (height×width)"
    assert "no bytes" in found["i3"][1]
    assert "looks like a JPEG image" in found["i4"][1]
    assert "RGB of 8 bits" in found["i5"][1]
    assert "cut off at byte" in found["i6"][1]
    expected = Confusion(3)  # by hand: the two that are left
    for key in ("i0", "i7"):
        expected.update(masks[key][0], masks[key][1], CLASSES.void_id)
    assert (score.confusion.counts == expected.counts).all()
    result = Evaluation("m", "l", CLASSES, score.confusion, score.images, 0, "digest", "net")
    text = result.to_text()
    assert "2 images scored, 0 error rows" in text
    assert "not scored: 5 bad_label, 1 size_mismatch\n  i1: i1 (" in text
    made_tables = score_tables.tables(result)
    assert made_tables["summary"]["n_images"].to_pylist() == [2]
    rows = {row["key"]: row for row in made_tables["per_image"].to_pylist()}
    assert rows["i2"]["reason"] == found["i2"][1]
    assert rows["i2"]["mean_iu"] is None


def test_masks_that_are_damaged_or_of_other_classes_are_told_apart(tmp_path):
    root = storage.parse_uri(str(tmp_path))
    labelled(storage.join(root, "data"), count=1)
    source = open_source(storage.join(root, "data"))
    mask = np.full((6, 9), 2, np.uint8)
    part = write_part(storage.join(root, "a"), 0, [("i0", mask)], encode=lambda m: b"no PNG")
    assert _statuses(score_part(part, source.units, [(0, 0)], CLASSES))["i0"][0] == "bad_mask"
    part = write_part(
        storage.join(root, "b"), 0, [("i0", mask)], encode=lambda m: made.png(m[:, :8])
    )
    found = _statuses(score_part(part, source.units, [(0, 0)], CLASSES))["i0"]
    assert found == ("bad_mask", "its mask is 6×8, its row (6, 9)")
    part = write_part(storage.join(root, "c"), 0, [("i0", mask)])
    two = dataclasses.replace(CLASSES, names=("sky", "road"), palette=())
    with pytest.raises(InputError, match=r"i0.*the masks have other classes"):
        score_part(part, _only_first_two_classes(source, root), [(0, 0)], two)


def _only_first_two_classes(source, root):
    """The source's units with a label that two classes are enough for."""
    storage.replace(
        f"{root}/data/labels/i0.png", images.encode_label(np.zeros((6, 9), np.uint8), CLASSES)
    )
    return open_source(storage.join(root, "data")).units


def test_a_record_without_a_label_is_no_failure(tmp_path):
    root = storage.parse_uri(str(tmp_path))
    masks = labelled(storage.join(root, "data"), count=2)
    label = images.encode_label(masks["i0"][0], CLASSES)
    records = [Record("i0", "u", "e", b"", label), Record("i1", "u", "e", b"", None)]
    storage.create(f"{root}/shard/s.parquet", write_shard(records, CLASSES))
    part = write_part(storage.join(root, "masks"), 0, [(k, m) for k, (_, m) in masks.items()])
    score = score_part(part, open_source(f"{root}/shard").units, [(0, 0), (0, 1)], CLASSES)
    assert _statuses(score) == {"i0": ("ok", ""), "i1": ("no_label", "")}
