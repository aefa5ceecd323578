"""Masks and labels whose keys repeat, joined by what their records are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import mask_join
from pipelines.errors import InputError
from pipelines.label_index import Place, index_labels, list_places
from pipelines.masks.generation import part_name
from pipelines.records import Record
from pipelines.scoring import MaskKeys
from pipelines.shards import write_shard
from pipelines.sources import Source, open_source
from pipelines.storage import ObjectRef
from pipelines.units import Unit
from tests.support import made

FINGERPRINT = "1" * 16


def shards(folder: Path, files: dict[str, list[tuple[str, str]]]) -> Source:
    """Labelled shards of (key, uri), each one unit."""
    for name, pairs in files.items():
        records = [Record(key, uri, "e", b"", made.label_png(0)) for key, uri in pairs]
        made.fill(folder, {f"{name}.parquet": write_shard(records, made.CLASSES)})
    return open_source(folder.as_uri())


def part(pairs: list[tuple[str, str]], unit: str = "0" * 16, records: int = 0) -> MaskKeys:
    """A part of masks of (key, uri) from a unit of that name."""
    return MaskKeys(
        part=ObjectRef(f"s3://out/part-{unit}-{FINGERPRINT}.parquet", "e", 1),
        keys=tuple(key for key, _ in pairs),
        uris=tuple(uri for _, uri in pairs),
        records=tuple(range(records, records + len(pairs))),
        models=frozenset({"m"}),
        classes=None,
    )


def part_of(source: Source, number: int, pairs: list[tuple[str, str]]) -> MaskKeys:
    return part(pairs, part_name(source.units[number]).unit)


def joined(source: Source, *parts: MaskKeys) -> mask_join.Join:
    return mask_join.join(parts, source, list_places(source))


def test_keys_that_occur_once_join_whatever_their_uris(tmp_path: Path) -> None:
    source = shards(tmp_path, {"a": [("x", "s3://made/x"), ("y", "s3://made/y")]})
    found = joined(source, part([("y", "s3://archive/y")]), part([("z", "z")], "2" * 16))
    assert found.places == ((Place(0, 1),), (None,))
    assert found.missing == ("x",)
    assert found.repeated == 0


def test_repeated_keys_join_by_their_place_in_the_same_unit(tmp_path: Path) -> None:
    twice = [("x", "u"), ("x", "u"), ("y", "u")]
    source = shards(tmp_path, {"a": twice, "b": twice})
    found = joined(source, part_of(source, 1, twice), part_of(source, 0, twice))
    assert found.places == (
        (Place(1, 0), Place(1, 1), Place(1, 2)),
        (Place(0, 0), Place(0, 1), Place(0, 2)),
    )
    assert (found.missing, found.repeated) == ((), 6)
    with pytest.raises(InputError, match="key 'x' labels two images"):
        index_labels(source)


def test_repeated_keys_join_by_uri_where_the_units_are_cut_otherwise(tmp_path: Path) -> None:
    first, second = [("x", "a.tar"), ("y", "a.tar")], [("x", "b.tar")]
    source = shards(tmp_path, {"a": first, "b": second})
    found = joined(source, part([*second, *first]))
    assert found.places == ((Place(1, 0), Place(0, 0), Place(0, 1)),)
    stranger = joined(source, part([*second, ("x", "c.tar"), *first]))
    assert stranger.places == ((Place(1, 0), None, Place(0, 0), Place(0, 1)),)
    fewer = joined(source, part([*first]))
    assert fewer.places == ((Place(0, 0), Place(0, 1)),)
    assert fewer.missing == ("x",)


@pytest.mark.parametrize(
    ("labels", "masks"),
    [
        ({"a": [("x", "u"), ("x", "u")]}, [("x", "u")]),
        ({"a": [("x", "u")]}, [("x", "u"), ("x", "u")]),
        ({"a": [("x", "u")]}, [("x", "v"), ("x", "w")]),
        ({"a": [("x", "u"), ("x", "v")]}, [("x", "other"), ("x", "place")]),
        ({"a": [("x", "u"), ("x", "u")]}, [("x", "u"), ("x", "u")]),
    ],
)
def test_what_cannot_be_told_apart_is_refused(
    tmp_path: Path, labels: dict[str, list[tuple[str, str]]], masks: list[tuple[str, str]]
) -> None:
    with pytest.raises(InputError, match=r"key 'x' repeats, .* masks are in s3://out/part-0000"):
        joined(shards(tmp_path, labels), part(masks))


def test_two_parts_of_one_unit_are_refused(tmp_path: Path) -> None:
    """As two versions of a shard leave them in a folder without a snapshot."""
    source = shards(tmp_path, {"a": [("x", "u")]})
    first = part_of(source, 0, [("x", "u")])
    other = first.part.uri.replace(FINGERPRINT, "2" * 16)
    second = replace(first, part=replace(first.part, uri=other))
    with pytest.raises(InputError, match=r"s3://out/part-.* and in s3://out/part-"):
        joined(source, first, second)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("uvw")), max_size=6, unique=True))
def test_every_label_has_one_mask_or_is_missing(pairs: list[tuple[str, str]]) -> None:
    """Against brute force: pairs of key and URI that are unique on both sides match exactly."""
    labels = [(key, uri) for key, uri in pairs if uri != "w"]
    masks = [(key, uri) for key, uri in pairs if uri != "v"]
    listed: dict[str, list[Place]] = {}
    for row, (key, _) in enumerate(labels):
        listed.setdefault(key, []).append(Place(0, row))
    source = open_source_of(labels)
    try:
        found = mask_join.join([part(masks)], source, listed)
    except InputError:
        return  # keys are left on both sides
    for (key, uri), place in zip(masks, found.places[0], strict=True):
        if (key, uri) in labels:
            assert place == Place(0, labels.index((key, uri)))
        elif place is not None:  # a key that occurs once on both sides
            assert [label for label, _ in labels].count(key) == 1
            assert [mask for mask, _ in masks].count(key) == 1
    used = [place for place in found.places[0] if place is not None]
    assert len(set(used)) == len(used)
    assert len(used) + len(found.missing) == len(labels)


def open_source_of(labels: list[tuple[str, str]]) -> Source:
    """A source of one unit of raw files, of which nothing is read."""
    objects = tuple(ObjectRef(uri, "e", 1) for _, uri in labels)
    unit = Unit("raw", objects=objects, keys=tuple(key for key, _ in labels))
    return Source("s3://labels", "pairs", made.CLASSES, (unit,))
