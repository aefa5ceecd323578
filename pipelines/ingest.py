"""Labelled units as a stream of decoded rows, for training and validation.

One dataset row in is a unit reference; one row out is a decoded pair, held as bytes with its height
and width: ragged tensor columns turn into pickled objects without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from ray.data import RandomSeedConfig, TaskPoolStrategy

from fcn_model.classes import ClassList
from fcn_model.errors import FCNError
from pipelines import images, ray_data
from pipelines.errors import ImageError, InputError
from pipelines.records import Record
from pipelines.sources import Source
from pipelines.units import Unit, read_unit

ROWS = pa.schema(
    [
        ("key", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("image", pa.large_binary()),
        ("label", pa.large_binary()),
        ("error", pa.string()),
    ]
)
"""``image`` is height*width*3 bytes RGB, ``label`` height*width bytes of class ids. ``error`` is
empty, or says why this unit has no further row; its other columns are then null."""

BLOCK_BYTES = 4 << 20
"""Rows leave the decoder in blocks of about this size, so that workers can share them evenly."""


@dataclass(frozen=True)
class Pair:
    """One decoded training example: ``image`` (H, W, 3) uint8 RGB, ``label`` (H, W) uint8."""

    key: str
    image: np.ndarray
    label: np.ndarray


def labelled_rows(source: Source, *, shuffle_seed: int | None = None, tasks: int = 2) -> Any:
    """A Ray dataset of `ROWS`, every record of the source once per execution.

    With a seed the units come in another order at each execution (epoch). At most ``tasks``
    decoding tasks run at a time. Raises InputError for a source without labels.
    """
    classes = classes_of(source)
    ray_data.context().target_max_block_size = BLOCK_BYTES
    rows = [{"unit": unit.to_json()} for unit in source.units]
    dataset = ray_data.one_row_per_block(rows)
    if shuffle_seed is not None:
        seed = RandomSeedConfig(seed=shuffle_seed, reseed_after_execution=True)
        dataset = dataset.randomize_block_order(seed=seed)
    return dataset.map_batches(
        decode_units,
        batch_size=1,
        batch_format="pyarrow",
        fn_kwargs={"classes": classes},
        compute=TaskPoolStrategy(size=tasks),
    )


def classes_of(source: Source) -> ClassList:
    """The class list of a labelled source. Raises InputError if it has none."""
    if source.classes is None:
        raise InputError(
            f"{source.uri} has no class list, so it cannot be used as labelled data; "
            "prepare it from a labelled layout (pairs, voc, camvid), or put a classes.json there"
        )
    return source.classes


def decode_units(table: pa.Table, classes: ClassList) -> Iterator[pa.Table]:
    """Decode the units of ``table`` into tables of `ROWS`, about BLOCK_BYTES at a time.

    What cannot be used becomes one row with ``error`` set, so that the driver can raise it as one
    clear line instead of a remote traceback.
    """
    pending: list[Pair] = []
    size = 0
    try:
        for text in table["unit"].to_pylist():
            for record in read_unit(Unit.from_json(text)):
                pair = decode_pair(record, classes)
                pending.append(pair)
                size += pair.image.nbytes + pair.label.nbytes
                if size >= BLOCK_BYTES:
                    yield rows_table(pending)
                    pending, size = [], 0
    except FCNError as error:
        yield pa.Table.from_pylist([{"error": str(error)}], schema=ROWS)
        return
    yield rows_table(pending)


def decode_pair(record: Record, classes: ClassList) -> Pair:
    """Decode and check one labelled record.

    Raises InputError (LabelError) naming the image if it has no label, cannot be decoded, or its
    label holds an id outside the class list or has another size.
    """
    where = f"{record.key} ({record.uri})"
    if record.label is None:
        raise InputError(f"image {where} has no label; training and evaluation need one for each")
    try:
        image = images.decode_image(record.image)
    except ImageError as error:
        raise InputError(f"image {where} cannot be read: {error}") from error
    try:
        label = images.decode_label(record.label)
    except ImageError as error:
        raise InputError(f"the label of image {where} cannot be read: {error}") from error
    images.check_label(label, classes, where, image_size=image.shape[:2])
    return Pair(record.key, image, label)


def rows_table(pairs: Sequence[Pair]) -> pa.Table:
    """Pairs as a table of `ROWS`."""
    return pa.table(
        {
            "key": [pair.key for pair in pairs],
            "height": [pair.image.shape[0] for pair in pairs],
            "width": [pair.image.shape[1] for pair in pairs],
            "image": [pair.image.tobytes() for pair in pairs],
            "label": [pair.label.tobytes() for pair in pairs],
            "error": [""] * len(pairs),
        },
        schema=ROWS,
    )


def pairs_of(table: pa.Table) -> list[Pair]:
    """The pairs of a batch of `ROWS`, as read-only views into it.

    Raises InputError with the text of the first error row.
    """
    pairs = []
    for index in range(table.num_rows):
        row = {name: table[name][index] for name in ROWS.names}
        if error := row["error"].as_py():
            raise InputError(error)
        height, width = row["height"].as_py(), row["width"].as_py()
        pixels = np.frombuffer(row["image"].as_buffer(), np.uint8)
        label = np.frombuffer(row["label"].as_buffer(), np.uint8)
        pairs.append(
            Pair(row["key"].as_py(), pixels.reshape(height, width, 3), label.reshape(height, width))
        )
    return pairs
