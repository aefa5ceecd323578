"""How the bytes of a label file become class ids: a value that travels with what it explains.

Data sets keep their labels as PNG or in MATLAB files, number them from 1, and call several values
void. A `LabelRule` says it all, so that files are stored and fetched as they lie in the source, and
decoded and checked in the worker that needs their ids.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np

from pipelines import images, matlab
from pipelines.errors import ImageError, LabelError
from pipelines.images import Pixels


@dataclass(frozen=True, kw_only=True)
class LabelRule:
    """``table[v - first]`` is the id, or void, of the stored value v.

    ``member`` is where the values lie in a MATLAB 5 file: a variable and the fields of structs;
    empty for a PNG. An empty table: the stored values are the ids.
    """

    member: tuple[str, ...] = ()
    first: int = 0
    table: bytes = b""

    def decode(
        self, data: bytes, where: str, *, max_pixels: int = images.DEFAULT_MAX_PIXELS
    ) -> Pixels:
        """The ids of a label file as (H, W) uint8; ``where`` names its image in messages.

        Raises ImageError if the file cannot be read, LabelError for a value without explanation.
        """
        if not self.member:
            raw = images.decode_label(data, max_pixels=max_pixels)
            return self.ids(raw, where) if self.table else raw
        raw = matlab.read_value(data, self.member)
        what = f"{'.'.join(self.member)} is {raw.dtype} of shape {raw.shape}"
        if raw.ndim != 2 or not raw.size:
            raise ImageError("unsupported_mode", f"{what}; wanted is one number for each pixel")
        if raw.size > max_pixels:
            raise ImageError("too_large", f"{what}; at most {max_pixels} pixels are read")
        return self.ids(raw, where)

    def ids(self, raw: np.ndarray, where: str) -> Pixels:
        """The ids of stored values (H, W) of any numeric type.

        Raises LabelError, naming ``where``, the values and how many pixels have them, for values
        outside the table or that are not whole.
        """
        table = np.frombuffer(self.table or bytes(range(256)), np.uint8)
        last = self.first + len(table) - 1
        explained = (raw >= self.first) & (raw <= last)
        if raw.dtype.kind == "f":
            explained &= raw == np.rint(raw)
        if not explained.all():
            values, counts = np.unique(raw[~explained], return_counts=True)
            named = ", ".join(
                f"{value:g} ({count} pixels)"
                for value, count in zip(values[:8].tolist(), counts, strict=False)
            )
            more = f" and {values.size - 8} more" if values.size > 8 else ""
            raise LabelError(
                f"{where}: the label file holds {named}{more}; "
                f"values of this data set are whole numbers from {self.first} to {last}"
            )
        return table[raw.astype(np.intp) - self.first]

    def to_json(self) -> list[object]:
        """A compact value that JSON can hold; `from_json` reads it back."""
        return [list(self.member), self.first, base64.b64encode(self.table).decode()]

    @classmethod
    def from_json(cls, value: list[object]) -> LabelRule:
        """Read what `to_json` wrote."""
        member, first, table = value
        assert isinstance(member, list)
        assert isinstance(first, int)
        return cls(member=tuple(member), first=first, table=base64.b64decode(str(table)))


PNG_IDS = LabelRule()
"""What holds where nothing is said, and in our own shards: a PNG of class ids."""


def from_one(count: int, member: tuple[str, ...] = (), *, void_id: int = 255) -> LabelRule:
    """The common rule: 0 is void, and classes are numbered from 1 to ``count``."""
    return LabelRule(member=member, table=bytes([void_id, *range(count)]))
