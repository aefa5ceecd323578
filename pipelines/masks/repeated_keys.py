"""Keys that stand more than once in a snapshot: no failure, for (unit, record) is the identity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.masks.coverage import hashes
from pipelines.masks.part_check import Checked
from pipelines.masks.verdict import Verdict

SHOWN = 3


def note_repeated_keys(where: str, parts: Sequence[Checked], verdict: Verdict) -> None:
    """Count the rows that share their key with another, and name some of the keys."""
    keys, times = np.unique(
        np.concatenate([hashes(()), *(part.keys for part in parts)]), return_counts=True
    )
    repeated = keys[times > 1]
    if repeated.size:
        shown = ", ".join(repr(_key(key, parts)) for key in repeated[:SHOWN])
        text = f"{repeated.size} keys stand more than once, such as {shown}"
        verdict.note("same key", where, text, int(times[times > 1].sum()))


def _key(wanted: np.uint64, parts: Sequence[Checked]) -> str:
    """The key of a hash, read again from a part that has it."""
    part = next(part for part in parts if (part.keys == wanted).any())
    row = int(np.flatnonzero(part.keys == wanted)[0])
    assert part.found is not None, "keys were read from a part that was there"
    with storage.open_ranged(part.found) as file, pq.ParquetFile(file) as parquet:
        return str(parquet.read(["key"], use_threads=False)["key"][row].as_py())
