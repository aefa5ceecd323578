"""Rows that still hold are written again as they were; which ones, follows from their versions."""

from __future__ import annotations

import pytest

from fcn_model import ClassList
from pipelines import storage
from pipelines.errors import ForeignObjectError, NotFoundError
from pipelines.masks import carry, parts
from pipelines.masks.generation import Generation, data_uri, part_name
from pipelines.schemas import MASKS
from pipelines.storage import ObjectRef
from pipelines.units import Unit

CLASSES = ClassList(names=("road", "car"))
GENERATION = Generation(model="m", network="n", precision="fp32", max_pixels=1)


def _unit(versions):
    refs = tuple(ObjectRef(f"s3://a/{n}.jpg", etag, 9) for n, etag in enumerate(versions))
    return Unit("raw", refs, keys=tuple(f"{n}.jpg" for n in range(len(refs))))


def _row(number, ref, transient):
    text = dict.fromkeys(MASKS.names, "") | {"key": f"{number}.jpg", "uri": ref.uri}
    ok = {
        "etag": ref.etag,
        "height": 1,
        "width": 2,
        "mask": None if transient else {"bytes": b"mask %03d" % number, "path": "a.png"},
        "class_pixels": None if transient else [number, 2],
        "status": "error" if transient else "ok",
        "attempts": 1,
        "transient": transient,
        "record": number,
    }
    return text | ok


@pytest.fixture
def stored(tmp_path):
    """An output with the part of a unit of 300 images, every seventh an error that may pass."""
    unit = _unit([f"e{number}" for number in range(300)])
    name = part_name(unit)
    rows = [_row(number, ref, number % 7 == 0) for number, ref in enumerate(unit.objects)]
    identity = parts.part_identity(GENERATION, name, unit.identity, len(rows))
    uri = storage.join(data_uri(tmp_path.as_uri(), GENERATION), name.file)
    assert parts.commit(uri, parts.encode_part(rows, identity, CLASSES), identity) == "committed"
    return tmp_path, unit, name, rows


def test_rows_hold_unless_their_image_changed_or_their_error_may_pass(stored):
    path, _, name, rows = stored
    states = carry.row_states(path.as_uri(), GENERATION, name)
    assert states == [carry.RowState(row["uri"], row["etag"], row["transient"]) for row in rows]
    changed = {5, 70, 299}
    now = _unit([f"new {n}" if n in changed else f"e{n}" for n in range(300)])
    held = carry.holding(now, states)
    assert held == [n for n in range(300) if n % 7 and n not in changed]
    assert carry.rows_at(path.as_uri(), GENERATION, name, held) == {n: rows[n] for n in held}


def test_of_planes_and_shards_nothing_is_known_to_hold(stored):
    path, unit, name, _ = stored
    states = carry.row_states(path.as_uri(), GENERATION, name)
    planes = Unit("raw", unit.objects, keys=unit.keys, planes=(("geo", unit.objects),))
    assert carry.holding(planes, states) == []
    assert carry.holding(Unit("tar", unit.objects[:1]), states[:1]) == []


def test_only_what_is_asked_for_is_read(stored, monkeypatch):
    path, _, name, _ = stored
    (file,) = path.rglob("*.parquet")
    damaged = bytearray(file.read_bytes())
    damaged[damaged.index(b"mask 050")] ^= 1  # a mask
    file.write_bytes(bytes(damaged))
    assert len(carry.row_states(path.as_uri(), GENERATION, name)) == 300
    with pytest.raises(ForeignObjectError, match=name.file):
        carry.rows_at(path.as_uri(), GENERATION, name, [1])
    file.unlink()
    with pytest.raises(NotFoundError, match=name.file):
        carry.row_states(path.as_uri(), GENERATION, name)
