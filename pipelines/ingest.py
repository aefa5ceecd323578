"""Labelled units as a stream of decoded rows, for training and validation.

One dataset row in is a unit reference; one row out is a decoded pair, held as bytes with its height
and width: ragged tensor columns turn into pickled objects without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from ray.data import RandomSeedConfig, TaskPoolStrategy

from fcn_model.classes import ClassList
from fcn_model.errors import FCNError
from pipelines import ray_data
from pipelines.decoding import PLANE_PIXELS, Pair, decode_pair
from pipelines.errors import InputError
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
empty, or says why this unit has no further row; its other columns are then null. Each plane is one
more column of bytes by its name, see `PLANE_PIXELS`."""

BLOCK_BYTES = 4 << 20
"""Rows leave the decoder in blocks of about this size, so that workers can share them evenly."""


def labelled_rows(
    source: Source,
    *,
    shuffle_seed: int | None = None,
    tasks: int = 2,
    planes: Sequence[str] | None = None,
) -> Any:
    """A Ray dataset of `ROWS`, every record of the source once per execution.

    With a seed the units come in another order at each execution (epoch). At most ``tasks``
    decoding tasks run at a time. ``planes`` are those that are wanted, None for all. Raises
    InputError for a source without labels, or without a plane that is wanted.
    """
    classes = classes_of(source)
    wanted = source.planes if planes is None else tuple(planes)
    if missing := [name for name in wanted if name not in source.planes]:
        raise InputError(
            f"{source.uri} has no plane {missing[0]!r}, which is wanted; "
            f"it has {list(source.planes) or 'images and labels only'}"
        )
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
        fn_kwargs={"classes": classes, "tasks": dict(source.tasks), "planes": wanted},
        compute=TaskPoolStrategy(size=min(tasks, len(rows))),  # Ray warns of more than it can use
    )


def classes_of(source: Source) -> ClassList:
    """The class list of a labelled source. Raises InputError if it has none."""
    return source.labels_of(None)[1]


def decode_units(
    table: pa.Table,
    classes: ClassList,
    tasks: Mapping[str, ClassList] | None = None,
    planes: Sequence[str] = (),
) -> Iterator[pa.Table]:
    """Decode the units of ``table`` into tables of `ROWS`, about BLOCK_BYTES at a time.

    What cannot be used becomes one row with ``error`` set, so that the driver can raise it as one
    clear line instead of a remote traceback.
    """
    pending: list[Pair] = []
    size = 0
    try:
        for text in table["unit"].to_pylist():
            for record in read_unit(Unit.from_json(text), planes=planes):
                pair = decode_pair(record, classes, tasks)
                pending.append(pair)
                size += pair.nbytes
                if size >= BLOCK_BYTES:
                    yield rows_table(pending, planes)
                    pending, size = [], 0
    except FCNError as error:
        yield pa.Table.from_pylist([{"error": str(error)}], schema=_schema(planes))
        return
    yield rows_table(pending, planes)


def _schema(planes: Sequence[str]) -> pa.Schema:
    return pa.schema([*ROWS, *((name, pa.large_binary()) for name in planes)])


def rows_table(pairs: Sequence[Pair], planes: Sequence[str] = ()) -> pa.Table:
    """Pairs as a table of `ROWS` and the named planes."""
    return pa.table(
        {
            "key": [pair.key for pair in pairs],
            "height": [pair.image.shape[0] for pair in pairs],
            "width": [pair.image.shape[1] for pair in pairs],
            "image": [pair.image.tobytes() for pair in pairs],
            "label": [pair.label.tobytes() for pair in pairs],
            "error": [""] * len(pairs),
            **{name: [pair.planes[name].tobytes() for pair in pairs] for name in planes},
        },
        schema=_schema(planes),
    )


def pairs_of(table: pa.Table) -> list[Pair]:
    """The pairs of a batch of `ROWS`, as read-only views into it.

    Raises InputError with the text of the first error row.
    """
    pairs = []
    names = [name for name in table.column_names if name in PLANE_PIXELS]
    for index in range(table.num_rows):
        row = {name: table[name][index] for name in (*ROWS.names, *names)}
        if error := row["error"].as_py():
            raise InputError(error)
        size = row["height"].as_py(), row["width"].as_py()
        pairs.append(
            Pair(
                row["key"].as_py(),
                _array(row["image"], size, np.uint8, (3,)),
                _array(row["label"], size, np.uint8, ()),
                {name: _array(row[name], size, *PLANE_PIXELS[name]) for name in names},
            )
        )
    return pairs


def _array(
    cell: pa.LargeBinaryScalar,
    size: tuple[int, int],
    kind: type[np.generic],
    axes: tuple[int, ...],
) -> np.ndarray:
    return np.frombuffer(cell.as_buffer(), kind).reshape(*size, *axes)
