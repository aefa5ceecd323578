"""One unit's masks as one Parquet object: built in memory, checked, committed by one create.

The object's existence is its commit record. There is no staging name, no rename and no marker that
could disagree with the data; a part that is visible is whole, and is never written again.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from fcn_model.classes import ClassList
from fcn_model.errors import FCNError
from pipelines import storage
from pipelines.errors import ForeignObjectError, NotFoundError
from pipelines.masks.generation import Generation, PartName
from pipelines.schemas import MASKS, with_metadata
from pipelines.storage import ObjectRef

IDENTITY_KEY = b"fcn.part"
STATS_KEY = b"fcn.stats"
ROWS_PER_GROUP = 128

Outcome = Literal["committed", "already"]


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What a part's rows add up to, so that nobody has to read masks in order to count them.

    Two attempts at a unit may differ in it, since a store can fail in one of them; the identity is
    the same for both.
    """

    records: int
    errors: dict[str, int] = field(default_factory=dict)
    """Error rows by kind."""
    transient: int = 0
    """Of them, those that may pass if the unit is done again."""
    class_pixels: tuple[int, ...] = ()
    constant: int = 0
    """Masks of a single class."""

    @classmethod
    def of(cls, rows: Sequence[dict[str, Any]], classes: int) -> Stats:
        """Count rows of the MASKS schema."""
        totals = [0] * classes
        constant = 0
        for row in rows:
            counts = row["class_pixels"] or ()
            constant += sum(count > 0 for count in counts) == 1
            for index, count in enumerate(counts):
                totals[index] += count
        return cls(
            records=len(rows),
            errors=dict(Counter(row["error_kind"] for row in rows if row["status"] == "error")),
            transient=sum(row["transient"] for row in rows),
            class_pixels=tuple(totals),
            constant=constant,
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Stats:
        """Read the footer's text."""
        return cls.from_value(json.loads(text))

    @classmethod
    def from_value(cls, value: dict[str, Any]) -> Stats:
        """The same from what JSON makes of it."""
        return cls(**value | {"class_pixels": tuple(value["class_pixels"])})


@dataclass(frozen=True)
class Described:
    """A part's footer: ``identity`` and ``stats`` are None if the file is not one of ours."""

    identity: dict[str, Any] | None
    rows: int
    stats: Stats | None


def encode_part(
    rows: Sequence[dict[str, Any]], identity: dict[str, Any], classes: ClassList
) -> bytes:
    """Serialize mask rows, then read the bytes back and compare.

    ``identity`` and the rows' `Stats` go into the footer. Page checksums are on, so that a flipped
    bit is an error.
    """
    stats = asdict(Stats.of(rows, len(classes)))
    extra = {
        IDENTITY_KEY.decode(): json.dumps(identity, sort_keys=True),
        STATS_KEY.decode(): json.dumps(stats, sort_keys=True),
    }
    schema = with_metadata(MASKS, classes=classes, extra=extra)
    table = pa.Table.from_pylist(list(rows), schema=schema)
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        row_group_size=ROWS_PER_GROUP,
        write_page_checksum=True,
        compression={"mask.bytes": "none"} | dict.fromkeys(_leaf_columns(), "zstd"),
        write_statistics=["key", "status"],
    )
    data = sink.getvalue()
    again = pq.read_table(io.BytesIO(data), page_checksum_verification=True)
    assert again.equals(table), "the serialized part differs from its rows"
    return data


def commit(uri: str, data: bytes, identity: dict[str, Any]) -> Outcome:
    """Create the part, or recognise that another attempt has done so.

    Raises ForeignObjectError if something else stands at ``uri``; it is left as it is.
    """
    if storage.create(uri, data):
        return "committed"
    found = read_identity(uri)
    if found != identity:
        raise ForeignObjectError(
            f"{uri} exists but is not the part {identity}; it says {found}. It was left untouched: "
            "move it away, or write to another --output"
        )
    return "already"


def part_identity(
    generation: Generation, name: PartName, unit: str, records: int
) -> dict[str, Any]:
    """What a part says of itself: which work it is, and of how many input records."""
    return {
        "generation": generation.id,
        "unit": name.unit,
        "version": name.version,
        "input": unit,
        "records": records,
    }


def list_parts(folder: str) -> dict[PartName, ObjectRef]:
    """The parts in a generation's folder; none if nothing was written yet."""
    found: dict[PartName, ObjectRef] = {}
    try:
        refs = list(storage.list_objects(folder))
    except NotFoundError:
        return found
    for ref in refs:
        name = PartName.parse(ref.uri.rsplit("/", 1)[1])
        if name is not None:
            found[name] = ref
    return found


def read_identity(uri: str) -> dict[str, Any] | None:
    """The identity in a part's footer, or None if it is no part of ours."""
    metadata = _footer(uri)
    return None if metadata is None else _identity(metadata)


def describe(uri: str) -> Described:
    """A part's identity, rows and stats, from one reading of its footer.

    Raises ForeignObjectError if it is not Parquet.
    """
    metadata = _footer(uri)
    if metadata is None:
        raise ForeignObjectError(f"{uri} is not a Parquet file; move it away")
    return described(metadata)


def described(metadata: pq.FileMetaData) -> Described:
    """What a Parquet footer says of itself as a part."""
    stored = (metadata.metadata or {}).get(STATS_KEY)
    stats = None if stored is None else Stats.from_json(stored)
    return Described(_identity(metadata), int(metadata.num_rows), stats)


def _identity(metadata: pq.FileMetaData) -> dict[str, Any] | None:
    stored = (metadata.metadata or {}).get(IDENTITY_KEY)
    return None if stored is None else dict(json.loads(stored))


def _footer(uri: str) -> pq.FileMetaData | None:
    ref = storage.stat(uri)
    if ref is None:
        return None
    try:
        with storage.open_ranged(ref) as file:
            return pq.ParquetFile(file).metadata
    except FCNError:
        raise  # the store's own errors pass through Arrow unchanged
    except (pa.ArrowException, OSError):
        return None


def _leaf_columns() -> list[str]:
    paths = []
    for column in MASKS:
        if pa.types.is_struct(column.type):
            paths += [
                f"{column.name}.{child.name}" for child in column.type if child.name != "bytes"
            ]
        elif pa.types.is_list(column.type):
            paths.append(f"{column.name}.list.element")
        else:
            paths.append(column.name)
    return paths
