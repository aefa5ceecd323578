"""Class weights of a run: labels counted by Ray Data, kept beside the run."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa

from fcn_model import ClassList, ModelConfig
from fcn_model.class_weights import LabelCounts, Weighting
from fcn_model.errors import FCNError
from pipelines import cluster, ingest, storage
from pipelines.batches import plane_of
from pipelines.errors import InputError, first_sentence
from pipelines.sources import Source
from pipelines.train_settings import START_ANEW

COUNTS_FILE = "label_counts.json"
COUNTS = pa.schema(
    [
        ("pixels", pa.list_(pa.int64())),
        ("image_pixels", pa.list_(pa.int64())),
        ("error", pa.string()),
    ]
)
"""Counts of some rows, all tasks one after another. ``error`` is empty, or says why there are none
of them."""


def weights_of_run(
    run_uri: str, source: Source, config: ModelConfig, weighting: Weighting
) -> list[list[float] | None]:
    """The class weights of each task's loss; the labels are counted once in the life of a run.

    Raises InputError for labels that training would refuse as well, and for damaged counts.
    """
    tasks = config.class_lists
    if weighting == "none":
        return [None] * len(tasks)
    kept = storage.join(run_uri, COUNTS_FILE)
    if storage.stat(kept) is None:
        counts = count_labels(source, config)
        text = json.dumps([one.to_dict() for one in counts])
        storage.replace(kept, text.encode())
    data = storage.read_bytes(kept)
    try:
        counts = _parsed(data, [len(classes) for classes in tasks])
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise InputError(
            f"{kept} is damaged ({first_sentence(error)}); remove it, and the labels are counted "
            f"again, or {START_ANEW}"
        ) from error
    weights = [one.weights(weighting) for one in counts]
    return [None if one is None else one.tolist() for one in weights]


def _parsed(data: bytes, classes: Sequence[int]) -> list[LabelCounts]:
    """The counts as they were written, of so many classes of each task."""
    counts = [LabelCounts.from_dict(value) for value in json.loads(data)]
    shapes = [(one.pixels.shape, one.image_pixels.shape) for one in counts]
    if shapes != [((number,), (number,)) for number in classes]:
        raise ValueError(f"it does not count labels of {list(classes)} classes")
    return counts


def count_labels(source: Source, config: ModelConfig) -> list[LabelCounts]:
    """Count the labels of every task, exactly, however the source is cut. Needs a running Ray."""
    tasks = config.class_lists
    names = [task.name for task in config.spec.more_tasks]
    rows = ingest.labelled_rows(source, planes=names, tasks=cluster.decoding_tasks(0)).map_batches(
        count_rows,
        batch_size=None,
        batch_format="pyarrow",
        fn_kwargs={"names": names, "tasks": tasks},
    )
    totals = [LabelCounts.none(len(classes)) for classes in tasks]
    for row in rows.iter_rows():
        if row["error"]:
            raise InputError(row["error"])
        start = 0
        for index, classes in enumerate(tasks):
            part = {name: row[name][start : start + len(classes)] for name in COUNTS.names[:2]}
            totals[index] += LabelCounts.from_dict(part)
            start += len(classes)
    return totals


def count_rows(table: pa.Table, names: Sequence[str], tasks: Sequence[ClassList]) -> pa.Table:
    """One row of `COUNTS` for a table of labelled rows; ``names`` are those of further tasks."""
    totals = [LabelCounts.none(len(classes)) for classes in tasks]
    try:
        for pair in ingest.pairs_of(table):
            labels = [pair.label, *(plane_of(pair, name) for name in names)]
            for index, (label, classes) in enumerate(zip(labels, tasks, strict=True)):
                totals[index] += LabelCounts.of_label(label, len(classes))
    except FCNError as error:
        return pa.Table.from_pylist([{"error": str(error)}], schema=COUNTS)
    row = {
        name: [count for one in totals for count in one.to_dict()[name]]
        for name in COUNTS.names[:2]
    }
    return pa.Table.from_pylist([row | {"error": ""}], schema=COUNTS)
