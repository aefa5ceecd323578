"""Input and rows are compared as plain counting says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pipelines.masks.coverage import cover, held_by
from pipelines.masks.generation import PartName, part_name
from pipelines.masks.verdict import Verdict
from pipelines.sources import Source
from pipelines.storage import ObjectRef
from pipelines.units import Unit


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)), st.integers(0, 9))
def test_single_files_are_compared_as_counting_says(wanted, have, cut):
    refs = tuple(ObjectRef(f"file:///{number}", "e", 1) for number in wanted)
    units = [Unit("raw", refs, keys=tuple("k" for _ in refs))] if refs else []
    source = Source("file:///", "archive", None, tuple(units))
    rows = [{"uri": f"file:///{number}", "etag": "e", "key": "k"} for number in have]
    identity = "raw file:///x+3 00ff"
    name = PartName("u", "v")
    held = [held_by(identity, name, rows[:cut]), held_by(identity, name, rows[cut:])]
    verdict = Verdict(output="")
    cover(source, [one for one in held if one], verdict)
    want, stand = Counter(wanted), Counter(have)
    assert verdict.input_records == len(wanted)
    assert verdict.counts["missing"] == sum(stand[number] < want[number] for number in want)
    assert verdict.counts["twice"] == sum(
        times > (want[number] or 1) for number, times in stand.items()
    )
    assert verdict.counts["gone"] == sum(stand[number] for number in stand.keys() - want.keys())


@given(st.integers(0, 20), st.lists(st.tuples(st.integers(0, 12), st.integers(1, 9)), max_size=5))
def test_ranges_of_a_shard_are_compared_as_counting_rows_says(rows, ranges):
    ref = ObjectRef("s3://b/a#1.parquet", "e", 1)
    unit = Unit("parquet", (ref,), start=0, stop=rows)
    source = Source("s3://b", "shards", None, (unit,) if rows else ())
    held = [
        held_by(
            replace(unit, start=start, stop=start + length).identity,
            PartName("u", part_name(unit).version),
            [{}] * length,
        )
        for start, length in ranges
    ]
    stand = Counter(row for start, length in ranges for row in range(start, start + length))
    verdict = Verdict(output="")
    cover(source, [one for one in held if one], verdict)
    assert verdict.counts["missing"] == sum(stand[row] == 0 for row in range(rows))
    if rows:
        assert verdict.counts["twice"] == sum(times - 1 for times in stand.values())
        assert verdict.counts["gone"] == sum(row >= rows for row in stand)
    else:
        assert verdict.counts["gone"] == sum(stand.values())


def test_tars_and_images_of_one_file_are_compared_too():
    tars = [Unit("tar", (ObjectRef(f"s3://b/{name}.tar", "e", 1),)) for name in "ab"]
    file = ObjectRef("s3://b/n.mat", "e", 1)
    nyud = Unit("nyud-mat", (file,), keys=("5001", "5002"))
    source = Source("s3://b", "tar", None, (*tars, nyud))
    rows = [{"uri": file.uri, "etag": "e", "key": "5001"}]
    held = [
        held_by(
            tars[0].identity,
            part_name(replace(tars[0], objects=(replace(tars[0].objects[0], etag="old"),))),
            [{}] * 7,
        ),
        held_by(nyud.identity, part_name(nyud), rows),
    ]
    verdict = Verdict(output="")
    cover(source, [one for one in held if one], verdict)
    assert +verdict.counts == Counter(missing=2, outdated=7)
    named = {problem.where for problem in verdict.problems if problem.kind == "missing"}
    assert named == {"s3://b/b.tar", "s3://b/n.mat image 5002"}
    assert verdict.input_records == 2 + 7
    assert held_by("something else", PartName("u", "v"), rows) is None
