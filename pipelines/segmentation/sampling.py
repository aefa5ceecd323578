"""A few real records out of an input of any size, spread over all of it, at the price of a few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from fcn_model.errors import FCNError
from pipelines import images, storage
from pipelines.errors import ChangedError, ImageError, NotFoundError, ShardError
from pipelines.storage import ObjectRef
from pipelines.units import Unit, read_unit

LARGEST_TAR = 64 << 20
"""A tar is read whole, whatever is wanted of it; larger ones are not read for a sample."""

TARS = 8
"""Tars that are tried until one can be read."""

HEADER_BYTES = 64 << 10
LARGEST_IMAGE = 32 << 20
"""A file whose size does not stand in its first HEADER_BYTES is read whole up to this size."""

DAMAGED = "damaged shard"
"""Stands in `Sample.refused` for shards that cannot be read, of which the records are unknown."""

_FETCHES = 8

_T = TypeVar("_T")


@dataclass
class Sample:
    """What some records look like: ``sizes`` are (height, width), upright, of those that open."""

    sizes: list[tuple[int, int]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    """Records that would be error rows, by kind, and shards that cannot be read."""
    encoded_bytes: int = 0
    """Of the files whose sizes are known."""

    @property
    def records(self) -> int:
        """Records that were looked at."""
        return len(self.sizes) + self.refused.total()

    @property
    def pixels(self) -> float:
        """Pixels of an image, on average."""
        return sum(height * width for height, width in self.sizes) / max(1, len(self.sizes))

    @property
    def mean_bytes(self) -> float:
        """Bytes of an image's file, on average; never 0, so that one can divide by it."""
        return max(1.0, self.encoded_bytes / max(1, len(self.sizes)))

    @property
    def largest(self) -> tuple[int, int]:
        """(height, width) of the image with the most pixels; there is at least one."""
        return max(self.sizes, key=lambda size: size[0] * size[1])


def take(units: Sequence[Unit], count: int, max_pixels: int) -> Sample:
    """Look at the headers of about ``count`` records; raises StoreError if the store fails.

    Images that are larger than ``max_pixels`` count as refused.
    """
    sample = Sample()
    for headers in read_each(pieces(units, count), _headers):
        if isinstance(headers, FCNError):
            sample.refused[DAMAGED] += 1
            continue
        for header, size in headers:
            try:
                height, width = images.probe(header)
            except ImageError as error:
                sample.refused[error.kind] += 1
                continue
            if height * width > max_pixels or max(height, width) > images.max_side(max_pixels):
                sample.refused["too_large"] += 1
                continue
            sample.sizes.append((height, width))
            sample.encoded_bytes += size
    return sample


def pieces(units: Sequence[Unit], count: int) -> Iterator[Unit]:
    """Small units that hold about ``count`` records between them, spread evenly over ``units``.

    The same input gives the same pieces. Of tars there are the `TARS` smallest, to be tried in this
    order (`read_each`).
    """
    if count < 1:
        raise ValueError(f"a sample has at least one record, got {count}")
    tars = [unit for unit in units if unit.kind == "tar"]
    tars = [unit for unit in tars if unit.objects[0].size <= LARGEST_TAR]
    yield from sorted(tars, key=lambda unit: unit.objects[0].size)[:TARS]
    others = [unit for unit in units if unit.kind != "tar"]
    chosen = min(len(others), count)
    for number in range(chosen):
        share = count * (number + 1) // chosen - count * number // chosen
        yield _piece(others[number * len(others) // chosen], share)


def read_each(
    units: Iterable[Unit], read: Callable[[Unit], Sequence[_T]]
) -> Iterator[Sequence[_T] | FCNError]:
    """What ``read`` gives of each of some `pieces`, or why a shard has nothing to give.

    That is a ShardError, or a NotFoundError or ChangedError for what is gone or another by now. Of
    tars, one that has records is enough; those behind it are left out.
    """
    enough = False
    for unit in units:
        if enough and unit.kind == "tar":
            continue
        try:
            found = read(unit)
        except (ShardError, NotFoundError, ChangedError) as error:
            yield error
            continue
        enough = enough or (unit.kind == "tar" and len(found) > 0)
        yield found


def _piece(unit: Unit, count: int) -> Unit:
    """The unit with ``count`` of its records, or all: neighbours in a shard, spread among files."""
    if unit.kind == "parquet":
        last = unit.start + count
        return replace(unit, stop=last if unit.stop is None else min(unit.stop, last))
    total = len(unit.keys)
    chosen = (
        [index * total // count for index in range(count)] if count < total else list(range(total))
    )
    if unit.kind == "raw":
        return unit.only(chosen)
    return replace(unit, keys=tuple(unit.keys[index] for index in chosen))


def _headers(unit: Unit) -> list[tuple[bytes, int]]:
    """The beginnings of the unit's image files, long enough for their sizes, and their lengths."""
    if unit.kind == "raw":
        with ThreadPoolExecutor(_FETCHES) as pool:
            return [
                (header, ref.size)
                for header, ref in zip(pool.map(_header, unit.objects), unit.objects, strict=True)
            ]
    return [(record.image, len(record.image)) for record in read_unit(unit, "record")]


def _header(ref: ObjectRef) -> bytes:
    """Empty if the file is gone or changed, which it is not worth telling apart here."""
    try:
        with storage.open_ranged(ref) as file:
            header = file.read(HEADER_BYTES)
            if len(header) < ref.size <= LARGEST_IMAGE and not _opens(header):
                header += file.read()
    except (ChangedError, NotFoundError):
        return b""
    return header


def _opens(header: bytes) -> bool:
    try:
        images.probe(header)
    except ImageError:
        return False
    return True
