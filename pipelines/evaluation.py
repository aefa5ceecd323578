"""Masks and labels to the paper's four scores: joined by key, counted in parallel, divided once.

Workers return integer counts, which are summed; any order, split or repetition of the work gives
the same tables. What cannot be scored is counted, with a reason, and never scored: error rows, and
images whose label is missing, unreadable, out of range or of another size.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from fcn_model import ClassList, Confusion
from fcn_model.errors import FCNError
from pipelines import ray_data, storage
from pipelines.errors import (
    ClusterError,
    IncompleteError,
    InputError,
    NotFoundError,
    as_data,
    from_data,
)
from pipelines.label_index import Place, list_places
from pipelines.mask_join import Places, join
from pipelines.mask_parts import list_masks
from pipelines.records import LABEL
from pipelines.scoring import ImageScore, MaskKeys, PartScore, read_mask_keys, score_part
from pipelines.sources import Source
from pipelines.storage import ObjectRef
from pipelines.units import Unit

PARTS_AT_ONCE = 16
SHOWN = 3


@dataclass(frozen=True)
class Evaluation:
    """What was counted. ``images`` has one entry per mask row, in order of keys."""

    masks: str
    labels: str
    classes: ClassList
    confusion: Confusion
    images: tuple[ImageScore, ...]
    missing: int  # labels without a mask row
    model: str
    network: str
    label_name: str = LABEL  # the label, or the plane that is another task's
    repeated: int = 0  # mask rows of which others have the same key

    @property
    def errors(self) -> int:
        """Mask rows that are error rows."""
        return sum(image.status == "error" for image in self.images)

    @property
    def excluded(self) -> dict[str, int]:
        """How many mask rows were not scored though they have a mask, by status."""
        counts = Counter(image.status for image in self.images)
        return {
            name: count for name, count in sorted(counts.items()) if name not in {"ok", "error"}
        }

    def to_text(self) -> str:
        """The four scores and every class's IU, as a table for a terminal."""
        width = max(len(name) for name in self.classes.names)
        lines = [
            f"{name:{width}}  IU {_number(iu)}  accuracy {_number(accuracy)}"
            for name, iu, accuracy in zip(
                self.classes.names, self.confusion.iu(), self.confusion.accuracy(), strict=True
            )
        ]
        scored = sum(image.status == "ok" for image in self.images)
        lines += [
            "",
            f"pixel accuracy {_number(self.confusion.pixel_accuracy)}",
            f"mean accuracy  {_number(self.confusion.mean_accuracy)}",
            f"mean IU        {_number(self.confusion.mean_iu)}",
            f"f.w. IU        {_number(self.confusion.frequency_weighted_iu)}",
            f"{scored} images scored, {self.errors} error rows, {self.missing} labels without mask",
        ]
        if self.excluded:
            counts = ", ".join(f"{count} {name}" for name, count in self.excluded.items())
            lines.append(f"not scored: {counts}")
            lines += [f"  {key}: {reason}" for key, reason in _reasons(self.images)[:SHOWN]]
        if self.repeated:
            lines.append(f"{self.repeated} masks share their key with another one")
        return "\n".join(lines)


def evaluate(
    masks_uri: str,
    labels: Source,
    *,
    task: str | None = None,
    allow_missing: bool = False,
    on_progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Score the masks under ``masks_uri`` against a labelled source. Needs a running Ray.

    Of labels for several tasks ``task`` names those to score against, None the first. An image
    whose label cannot be compared is excluded, counted, and has a reason (`ImageScore`). Raises
    InputError if masks and labels have no key in common or none that can be scored, for keys that
    repeat and cannot be told apart (`mask_join`), and for masks of several models or other classes;
    IncompleteError for labels without a mask, unless ``allow_missing``.
    """
    masks_uri = storage.parse_uri(masks_uri)
    label_name, classes = labels.labels_of(task)
    with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
        keys = list(pool.map(read_mask_keys, list_masks(masks_uri)))
    listed = list_places(labels)
    model = _one_model(masks_uri, keys)
    _check_classes(keys, labels, classes)
    joined = join(keys, labels, listed)
    missing = joined.missing
    if not any(place for places in joined.places for place in places):
        raise _nothing_in_common(masks_uri, labels, keys, listed)
    if missing and not allow_missing:
        total = sum(map(len, listed.values()))
        raise IncompleteError(
            f"{len(missing)} of {total} labels of {labels.uri} have no mask in {masks_uri}, "
            f"such as {list(missing[:SHOWN])}; segment them, or score the rest with --allow-missing"
        )
    images: list[ImageScore] = []
    confusion = Confusion(len(classes))
    for done, part in enumerate(_score_all(keys, labels, joined.places, task), start=1):
        images += part.images
        confusion += part.confusion
        if on_progress:
            on_progress(f"{done} of {len(keys)} parts scored, {len(images)} images")
    reasons = _reasons(images)
    if reasons and not any(image.status == "ok" for image in images):
        raise InputError(
            f"none of {len(images)} masks of {masks_uri} can be scored against {labels.uri}; "
            f"{reasons[0][0]}: {reasons[0][1]}"
        )
    return Evaluation(
        masks=masks_uri,
        labels=labels.uri,
        classes=classes,
        confusion=confusion,
        images=tuple(sorted(images, key=lambda image: image.key)),
        missing=len(missing),
        model=model,
        network=_network_of(keys),
        label_name=label_name,
        repeated=joined.repeated,
    )


def _one_model(masks_uri: str, keys: Sequence[MaskKeys]) -> str:
    models = sorted({model for part in keys for model in part.models})
    if not models:
        raise NotFoundError(f"{masks_uri} holds no mask row; there is nothing to score")
    if len(models) != 1:
        folders = sorted({part.part.uri.rsplit("/", 1)[0] for part in keys})
        raise InputError(
            f"{masks_uri} holds masks of {len(models)} models; give one generation: "
            f"{', '.join(folders)}"
        )
    return models[0]


def _check_classes(keys: Sequence[MaskKeys], labels: Source, classes: ClassList) -> None:
    for part in keys:
        if part.classes is not None and part.classes.names != classes.names:
            raise InputError(
                f"the masks of {part.part.uri} have the classes {list(part.classes.names)}, the "
                f"labels of {labels.uri} {list(classes.names)}; ids would be compared that "
                "mean different things"
            )


def _nothing_in_common(
    masks_uri: str, labels: Source, keys: Sequence[MaskKeys], listed: dict[str, list[Place]]
) -> InputError:
    first = min((key for part in keys for key in part.keys), default="")
    return InputError(
        f"no mask has a label: {masks_uri} has keys such as {first!r}, "
        f"{labels.uri} such as {min(listed, default='')!r}; segment the labelled images "
        "themselves"
    )


def _reasons(images: Sequence[ImageScore]) -> list[tuple[str, str]]:
    """Keys and reasons of images that were not scored, in order of keys."""
    return sorted((image.key, image.reason) for image in images if image.reason)


def _network_of(keys: Sequence[MaskKeys]) -> str:
    """The network's name from the generation's record, or empty if only the parts were copied."""
    output, _, generation = keys[0].part.uri.rsplit("/", 1)[0].rpartition("/data/gen=")
    try:
        record = storage.read_bytes(storage.join(output, "_fcn", "gen", f"{generation}.json"))
    except FCNError:
        return ""
    return str(json.loads(record)["network"])


def _score_all(
    keys: Sequence[MaskKeys], labels: Source, places: Sequence[Places], task: str | None
) -> Iterator[PartScore]:
    """Every part's scores, as they are done. One dataset row is one part."""
    label_name, classes = labels.labels_of(task)
    rows = []
    for part, found in zip(keys, places, strict=True):
        needed = sorted({place.unit for place in found if place is not None})
        rows.append(
            {
                "part": json.dumps(asdict(part.part)),
                "units": [labels.units[number].to_json() for number in needed],
                "places": json.dumps(
                    [place and (needed.index(place.unit), place.row) for place in found]
                ),
            }
        )
    ray_data.context()
    dataset = ray_data.one_row_per_block(rows).map_batches(
        _score_row,
        batch_size=1,
        batch_format="pyarrow",
        fn_kwargs={"classes": classes, "label_name": label_name},
    )
    try:
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in batch.to_pylist():
                if row["error"]:
                    raise from_data(row)
                yield PartScore(
                    Confusion.from_counts(np.array(json.loads(row["counts"]))),
                    tuple(ImageScore(**value) for value in json.loads(row["images"])),
                )
    except ray_data.FAILURES as error:
        raise ClusterError(f"Ray could not score the masks: {ray_data.last_line(error)}") from error


def _score_row(table: pa.Table, classes: ClassList, label_name: str) -> pa.Table:
    """One part to one receipt. Errors travel as data, or they would become tracebacks."""
    row = table.to_pylist()[0]
    answer: dict[str, Any] = {"counts": "", "images": "", "error_type": "", "error": ""}
    try:
        score = score_part(
            ObjectRef(**json.loads(row["part"])),
            [Unit.from_json(text) for text in row["units"]],
            [place and tuple(place) for place in json.loads(row["places"])],
            classes,
            label_name,
        )
        answer["counts"] = json.dumps(score.confusion.counts.tolist())
        answer["images"] = json.dumps([asdict(image) for image in score.images])
    except FCNError as error:
        answer |= as_data(error)
    return pa.Table.from_pylist([answer])


def _number(value: float) -> str:
    return "   –  " if np.isnan(value) else f"{value:.4f}"
