"""Rows of a unit's earlier part that still hold when the unit is done again.

When one image of a group changes, or one error row may pass, only that record is work: the others
keep their rows. An image that was deleted keeps its row too, for it could not be made again.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fcn_model.errors import FCNError
from pipelines import storage
from pipelines.errors import ForeignObjectError, NotFoundError
from pipelines.masks.generation import Generation, PartName, data_uri
from pipelines.units import Unit


@dataclass(frozen=True, slots=True)
class RowState:
    """What a row was made of, and whether it is an error that may pass if tried again."""

    uri: str
    etag: str
    transient: bool


def row_states(output: str, generation: Generation, name: PartName) -> list[RowState]:
    """The state of every row of a part, in record order; masks are not fetched.

    Raises NotFoundError if there is no such part, ForeignObjectError if it is damaged.
    """
    columns = ["uri", "etag", "transient"]
    rows = _read(output, generation, name, columns).select(columns)
    return [RowState(*values) for values in zip(*rows.to_pydict().values(), strict=True)]


def holding(unit: Unit, states: Sequence[RowState]) -> list[int]:
    """The records of a unit, by number, whose rows need not be made again.

    These are files in the version that the row was made of, if the row is no error that may pass.
    Rows do not say which planes they were made of, so of units with planes there are none; nor of
    shards, which are read as a whole.
    """
    if unit.kind != "raw" or unit.planes:
        return []
    return [
        number
        for number, (ref, row) in enumerate(zip(unit.objects, states, strict=True))
        if (ref.uri, ref.etag) == (row.uri, row.etag) and not row.transient
    ]


def rows_at(
    output: str, generation: Generation, name: PartName, records: Collection[int]
) -> dict[int, dict[str, Any]]:
    """Rows of a part by record number, as they are to be written again.

    Raises as `row_states`.
    """
    table = _read(output, generation, name, None)
    wanted = sorted(records)
    return dict(zip(wanted, table.take(wanted).to_pylist(), strict=True))


def _read(
    output: str, generation: Generation, name: PartName, columns: list[str] | None
) -> pa.Table:
    uri = storage.join(data_uri(output, generation), name.file)
    ref = storage.stat(uri)
    if ref is None:
        raise NotFoundError(f"{uri} was listed, but is not there any more; run the job again")
    try:
        with storage.open_ranged(ref) as file:
            return pq.read_table(file, columns=columns, page_checksum_verification=True)
    except FCNError:
        raise  # the store's own errors pass through Arrow unchanged
    except (pa.ArrowException, OSError) as error:
        raise ForeignObjectError(f"{uri} is damaged, or no part of ours: {error}") from error
