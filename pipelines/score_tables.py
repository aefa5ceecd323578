"""An evaluation as four Parquet tables, with the convention named and the counts kept."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import storage
from pipelines.evaluation import Evaluation
from pipelines.schemas import CONFUSION, PER_CLASS, PER_IMAGE, SUMMARY, with_metadata
from pipelines.scoring import ImageScore

MEAN_IU_RULE = (
    "mean over classes with pixels in labels or masks (score.py of the reference); "
    "a class that is only predicted counts as 0"
)


def write_tables(evaluation: Evaluation, output: str) -> dict[str, str]:
    """Write summary, per_class, per_image and confusion; returns their URIs by name.

    Tables that are there are replaced, each as a whole.
    """
    root = storage.parse_uri(output)
    uris = {}
    for name, table in tables(evaluation).items():
        schema = with_metadata(table.schema, classes=evaluation.classes)
        sink = io.BytesIO()
        pq.write_table(table.cast(schema), sink, write_page_checksum=True)
        uris[name] = storage.join(root, f"{name}.parquet")
        storage.replace(uris[name], sink.getvalue())
    return uris


def tables(evaluation: Evaluation) -> dict[str, pa.Table]:
    """The four tables, of the schemas of `pipelines.schemas`."""
    return {
        "summary": pa.Table.from_pylist([_summary(evaluation)], schema=SUMMARY),
        "per_class": pa.Table.from_pylist(_per_class(evaluation), schema=PER_CLASS),
        "per_image": pa.Table.from_pylist(
            [_per_image(image) for image in evaluation.images], schema=PER_IMAGE
        ),
        "confusion": pa.Table.from_pylist(_confusion(evaluation), schema=CONFUSION),
    }


def _summary(evaluation: Evaluation) -> dict[str, Any]:
    confusion, images = evaluation.confusion, evaluation.images
    return {
        "pixel_accuracy": confusion.pixel_accuracy,
        "mean_accuracy": confusion.mean_accuracy,
        "mean_iu": confusion.mean_iu,
        "frequency_weighted_iu": confusion.frequency_weighted_iu,
        "mean_iu_rule": MEAN_IU_RULE,
        "mean_iu_gt_present": confusion.mean_iu_gt_present,
        "mean_iu_absent_as_zero": confusion.mean_iu_absent_as_zero,
        "void_id": evaluation.classes.void_id,
        "n_images": sum(image.status == "ok" for image in images),
        "n_pixels": int(confusion.counts.sum()),
        "n_void_pixels": sum(image.void_pixels for image in images),
        "n_errors": evaluation.errors,
        "n_missing": evaluation.missing,
        "n_excluded": sum(evaluation.excluded.values()),
        "network": evaluation.network,
        "model": evaluation.model,
        "masks_uri": evaluation.masks,
        "labels_uri": evaluation.labels,
    }


def _per_class(evaluation: Evaluation) -> list[dict[str, Any]]:
    counts = evaluation.confusion.counts
    return [
        {
            "class_id": index,
            "name": name,
            "iu": evaluation.confusion.iu()[index],
            "accuracy": evaluation.confusion.accuracy()[index],
            "intersection": int(counts[index, index]),
            "label_pixels": int(counts[index].sum()),
            "mask_pixels": int(counts[:, index].sum()),
        }
        for index, name in enumerate(evaluation.classes.names)
    ]


def _per_image(image: ImageScore) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(PER_IMAGE.names)
    row |= {"key": image.key, "status": image.status, "reason": image.reason}
    if image.status != "ok":
        return row
    return row | {
        "pixel_accuracy": image.pixel_accuracy,
        "mean_iu": image.mean_iu,
        "intersection": image.intersection,
        "label_pixels": image.label_pixels,
        "mask_pixels": image.mask_pixels,
        "n_void_pixels": image.void_pixels,
    }


def _confusion(evaluation: Evaluation) -> list[dict[str, int]]:
    return [
        {"label": label, "mask": mask, "pixels": int(pixels)}
        for (label, mask), pixels in np.ndenumerate(evaluation.confusion.counts)
    ]
