"""A part is whole, says what it is, and is never written twice."""

from __future__ import annotations

import io
import json
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fcn_model import ClassList
from pipelines import storage
from pipelines.errors import ForeignObjectError
from pipelines.masks import parts
from pipelines.schemas import MASKS, classes_of

CLASSES = ClassList(names=("road", "car"))
IDENTITY = {"generation": "g", "unit": "u", "version": "v", "input": "raw:x", "records": 2}


def _rows():
    ok = dict.fromkeys(MASKS.names, "") | {
        "height": 1,
        "width": 2,
        "mask": {"bytes": b"\x89PNG" + bytes(300), "path": "a.png"},
        "class_pixels": [1, 1],
        "status": "ok",
        "attempts": 1,
        "transient": False,
        "record": 0,
    }
    error = ok | {
        "mask": None,
        "class_pixels": None,
        "status": "error",
        "error_kind": "store",
        "transient": True,
        "record": 1,
    }
    return [ok, error]


def test_any_flipped_bit_of_a_page_is_noticed_by_a_reader_that_checks():
    data = parts.encode_part(_rows(), IDENTITY, CLASSES)
    position = data.index(bytes(200)) + 100  # within the mask's bytes
    damaged = bytearray(data)
    damaged[position] ^= 1
    with pytest.raises(OSError, match=r"(?i)crc|checksum"):
        pq.read_table(io.BytesIO(bytes(damaged)), page_checksum_verification=True)


def test_the_schema_holds_even_when_every_row_is_an_error():
    table = pq.read_table(io.BytesIO(parts.encode_part(_rows()[1:], IDENTITY, CLASSES)))
    assert table.schema.equals(MASKS)
    assert classes_of(table.schema) == CLASSES
    assert json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]["mask"] == {
        "_type": "Image"
    }


def test_a_second_commit_of_the_same_work_changes_nothing(tmp_path):
    uri = storage.parse_uri(str(tmp_path / "part.parquet"))
    first = parts.encode_part(_rows(), IDENTITY, CLASSES)
    assert parts.commit(uri, first, IDENTITY) == "committed"
    other_bytes = parts.encode_part(_rows()[:1], IDENTITY, CLASSES)
    assert parts.commit(uri, other_bytes, IDENTITY) == "already"
    assert storage.read_bytes(uri) == first
    assert parts.describe(uri) == parts.Described(
        IDENTITY, 2, parts.Stats(records=2, errors={"store": 1}, transient=1, class_pixels=(1, 1))
    )


def test_stats_are_plain_counts_over_the_rows():
    rng = np.random.default_rng(3)
    rows, masks, kinds = [], [], []
    for index in range(40):
        row = _rows()[0] | {"record": index}
        if index % 5 == 4:
            kinds.append(str(rng.choice(["store", "truncated"])))
            row |= {"mask": None, "class_pixels": None, "status": "error"}
            row |= {"error_kind": kinds[-1], "transient": kinds[-1] == "store"}
        else:
            masks.append(rng.integers(0, 1 + index % 2, 30))  # every second is all of class 0
            row |= {"class_pixels": np.bincount(masks[-1], minlength=2).tolist()}
        rows.append(row)
    stats = parts.Stats.of(rows, 2)
    assert stats.records == 40
    assert stats.errors == {kind: kinds.count(kind) for kind in set(kinds)}
    assert stats.transient == kinds.count("store")
    assert stats.class_pixels == tuple(np.bincount(np.concatenate(masks), minlength=2).tolist())
    assert stats.constant == sum(len(set(mask.tolist())) == 1 for mask in masks)
    assert parts.Stats.from_json(json.dumps(asdict(stats))) == stats


@pytest.mark.parametrize("foreign", [b"junk", b"", None])
def test_a_foreign_object_at_our_name_is_refused_and_left_alone(tmp_path, foreign):
    if foreign is None:
        sink = io.BytesIO()
        pq.write_table(pa.table({"other": [1]}), sink)
        foreign = sink.getvalue()
    uri = storage.parse_uri(str(tmp_path / "part.parquet"))
    (tmp_path / "part.parquet").write_bytes(foreign)
    with pytest.raises(ForeignObjectError, match="left untouched"):
        parts.commit(uri, parts.encode_part(_rows(), IDENTITY, CLASSES), IDENTITY)
    assert (tmp_path / "part.parquet").read_bytes() == foreign
