"""A data set through shards and back, compared with what it should become."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from pipelines import storage
from pipelines.ingest import decode_units, pairs_of
from pipelines.prepared_shard import make_shard
from pipelines.shards import plan_shards
from pipelines.sources import Source, open_source
from tests.support.published import Expected


def opened(root: Path, expected: Expected, **options: object) -> Source:
    """The set as ``auto`` finds it, or by its layout where that has to be named."""
    layout = "auto" if expected.auto else expected.layout
    return open_source(str(root), layout=layout, split=expected.split, **options)  # type: ignore[arg-type]


def prepared(source: Source, output: Path) -> Source:
    """The source as shards of one image each."""
    root = storage.parse_uri(str(output))
    assert source.classes is not None
    for plan in plan_shards(source, 1 << 20, 1):
        make_shard(plan, root, source.classes, source.tasks)
    return open_source(str(output))


def check(source: Source, expected: Expected) -> None:
    """Decode the source as training does, and compare every value of every array."""
    assert source.classes is not None
    table = pa.table({"unit": [unit.to_json() for unit in source.units]})
    blocks = decode_units(table, source.classes, source.tasks, source.planes)
    pairs = [pair for block in blocks for pair in pairs_of(block)]
    assert [pair.key for pair in pairs] == list(expected.images)
    for pair in pairs:
        np.testing.assert_array_equal(pair.image, expected.images[pair.key])
        np.testing.assert_array_equal(pair.label, expected.labels[pair.key])
        planes = expected.planes.get(pair.key, {})
        assert set(pair.planes) == set(planes) == set(source.planes)
        for name, plane in planes.items():
            assert pair.planes[name].dtype == plane.dtype
            np.testing.assert_array_equal(pair.planes[name], plane)
