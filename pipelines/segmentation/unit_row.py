"""A unit on its way through the stages of bulk segmentation: one row of an Arrow table.

A row carries all of the unit's records in list columns, so that no split or merge of blocks can cut
a unit in two.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pyarrow as pa

from pipelines.units import Unit

TRANSIENT_KINDS = frozenset({"missing", "changed", "store", "denied", "out_of_memory"})
"""Kinds of error rows that may pass when the record is done again; all others are the image's."""

UNIT_ROW = pa.schema(
    [("meta", pa.string())]
    + [(name, pa.list_(pa.string())) for name in ("key", "uri", "etag", "form", "kind", "error")]
    + [(name, pa.list_(pa.int32())) for name in ("height", "width", "attempts")]
    + [("counts", pa.list_(pa.list_(pa.int64())))]
    + [("data", pa.list_(pa.large_binary())), ("planes", pa.list_(pa.list_(pa.large_binary())))]
)

_META = ("unit", "failed", "transient", "retry", "was", "last_try", "seconds")

Form = Literal["encoded", "rgb", "mask", "png", "error", "kept"]
"""``encoded``: the image file. ``rgb``: its pixels. ``mask``: class ids. ``png``: the encoded mask,
of an image whose pixels would be too many to send about. ``kept``: the record's row in the unit's
earlier part still holds."""


@dataclass(frozen=True)
class Item:
    """One record on its way: ``data`` and the network's further ``planes`` are as ``form`` says.

    Both are bytes, or buffers of the table that they came in. A view of an array would work, and
    the array would never be freed: pyarrow 26 keeps a reference to every view that it converts.
    """

    key: str
    uri: str
    etag: str
    form: Form
    data: Any = b""
    planes: tuple[Any, ...] = ()
    height: int = 0
    width: int = 0
    kind: str = ""
    error: str = ""
    attempts: int = 1
    counts: Sequence[int] = ()
    """Pixels of each class, of a ``png``."""

    def failed(self, kind: str, text: str) -> Item:
        """The record as an error row."""
        nothing: dict[str, Any] = {"data": b"", "planes": (), "height": 0, "width": 0, "counts": ()}
        return replace(self, form="error", kind=kind, error=text[:500], **nothing)


@dataclass
class UnitRow:
    """A unit and its records, as they pass from stage to stage.

    ``failed`` says why the unit as a whole cannot be done, and ``transient`` whether that may pass.
    ``retry`` numbers the parts of one version of a unit, and ``was`` is the file of the part, if
    any, whose place the new one takes. On the ``last_try`` an object that the store does not give
    is an error row instead of the unit's failure.
    """

    unit: str
    failed: str = ""
    transient: bool = False
    retry: int = 0
    was: str = ""
    last_try: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    items: list[Item] = field(default_factory=list)

    def to_table(self) -> pa.Table:
        """One row of `UNIT_ROW`."""
        columns = {
            name: [[getattr(item, name) for item in self.items]] for name in UNIT_ROW.names[1:]
        }
        return pa.table({"meta": [self._meta()], **columns}, schema=UNIT_ROW)

    @classmethod
    def from_table(cls, table: pa.Table) -> UnitRow:
        """Read `to_table` back; ``data`` and ``planes`` are views into the table."""
        row = cls.without_records(table)
        texts = [table[name][0].as_py() for name in UNIT_ROW.names[1:-2]]
        data = [value.as_buffer() or b"" for value in table["data"][0]]
        planes = [tuple(one.as_buffer() for one in value) for value in table["planes"][0]]
        row.items = [
            Item(**dict(zip(UNIT_ROW.names[1:], values, strict=True)))
            for values in zip(*texts, data, planes, strict=True)
        ]
        return row

    @classmethod
    def without_records(cls, table: pa.Table) -> UnitRow:
        """What a row says of the unit itself."""
        assert table.num_rows == 1, f"a unit row travels alone, got {table.num_rows} rows"
        return cls(**json.loads(table["meta"][0].as_py()))

    def new(self) -> dict[str, Any]:
        """The dataset row that stands for the unit before anything was read."""
        return {"meta": self._meta()}

    @property
    def planned(self) -> Unit:
        """The unit as a value."""
        return Unit.from_json(self.unit)

    def _meta(self) -> str:
        return json.dumps({name: getattr(self, name) for name in _META})
