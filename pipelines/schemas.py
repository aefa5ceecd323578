"""The Arrow schemas of everything that is written as Parquet.

Images and masks are ``struct{bytes, path}``, which Hugging Face datasets shows as an image when
the schema says so in its ``huggingface`` metadata; other readers see plain bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from fcn_model.classes import ClassList

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""An encoded image: the file's bytes and a file name."""

SHARD = pa.schema(
    [
        ("key", pa.string()),
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("image", IMAGE),
        ("label", IMAGE),
    ]
)
"""One row per input image. ``height`` and ``width`` are those of the upright image in pixels, 0 if
its header could not be read. ``label`` is a palette or grey PNG of class ids, null in an unlabelled
archive. ``uri`` and ``etag`` name the source object. The `PLANES` that a data set has follow."""

PLANES = ("depth", "hha", "geo")
"""Further columns of type IMAGE, in this order: a 16-bit grey PNG, an 8-bit PNG of three channels,
and a second label, of which the class list stands in the metadata."""

MANIFEST = pa.schema(
    [
        ("key", pa.string()),
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("bytes", pa.int64()),
        ("shard", pa.string()),
        ("row", pa.int32()),
    ]
)
"""One row per input image: where it came from, and in which shard and row it lies."""

MASKS = pa.schema(
    [
        ("key", pa.string()),
        ("uri", pa.string()),
        ("etag", pa.string()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("mask", IMAGE),
        ("class_pixels", pa.list_(pa.int64())),
        ("status", pa.string()),
        ("error_kind", pa.string()),
        ("error", pa.string()),
        ("attempts", pa.int32()),
        ("transient", pa.bool_()),
        ("model", pa.string()),
        ("unit", pa.string()),
        ("record", pa.int64()),
    ]
)
"""One row per input record, in record order. ``status`` is ``ok`` or ``error``; an error row has a
null mask and null ``class_pixels``, and ``error_kind`` and ``error`` say why; both are empty in an
``ok`` row. ``attempts`` says how often the record was tried; ``transient`` error rows may pass if
tried again, as ``segment --retry-errors`` does. ``class_pixels[c]`` counts the pixels of class c.
``model`` is the checkpoint's digest. (``unit``, ``record``) identify the input record, also when
two records share a key."""

SUMMARY = pa.schema(
    [
        ("pixel_accuracy", pa.float64()),
        ("mean_accuracy", pa.float64()),
        ("mean_iu", pa.float64()),
        ("frequency_weighted_iu", pa.float64()),
        ("mean_iu_rule", pa.string()),
        ("mean_iu_gt_present", pa.float64()),
        ("mean_iu_absent_as_zero", pa.float64()),
        ("void_id", pa.int32()),
        ("n_images", pa.int64()),
        ("n_pixels", pa.int64()),
        ("n_void_pixels", pa.int64()),
        ("n_errors", pa.int64()),
        ("n_missing", pa.int64()),
        ("n_excluded", pa.int64()),
        ("network", pa.string()),
        ("model", pa.string()),
        ("masks_uri", pa.string()),
        ("labels_uri", pa.string()),
    ]
)
"""One row. Scores are fractions in 0..1, NaN where undefined. ``mean_iu`` follows the reference's
score.py: classes absent from labels and masks are left out, a class that was only predicted counts
as 0 (``mean_iu_rule`` says so). The other two conventions stand beside it by their own names.
``n_errors`` counts error rows, ``n_missing`` labels without a mask row, ``n_excluded``
images whose label or mask cannot be used; none of them is scored."""

PER_CLASS = pa.schema(
    [
        ("class_id", pa.int32()),
        ("name", pa.string()),
        ("iu", pa.float64()),
        ("accuracy", pa.float64()),
        ("intersection", pa.int64()),
        ("label_pixels", pa.int64()),
        ("mask_pixels", pa.int64()),
    ]
)
"""One row per class; ``iu`` and ``accuracy`` are NaN where the class has no pixel to judge."""

PER_IMAGE = pa.schema(
    [
        ("key", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("pixel_accuracy", pa.float64()),
        ("mean_iu", pa.float64()),
        ("intersection", pa.list_(pa.int64())),
        ("label_pixels", pa.list_(pa.int64())),
        ("mask_pixels", pa.list_(pa.int64())),
        ("n_void_pixels", pa.int64()),
    ]
)
"""One row per mask row. ``status`` is ``ok``, ``error`` (the mask is an error row), ``no_label``,
``bad_label`` (it cannot be decoded, or holds ids outside the class list), ``size_mismatch`` (label
and mask differ in size) or ``bad_mask``; ``reason`` says more. Only ``ok`` rows are scored, and
have counts."""

CONFUSION = pa.schema([("label", pa.int32()), ("mask", pa.int32()), ("pixels", pa.int64())])
"""K*K rows in long form: pixels of class ``label`` that the mask calls ``mask``."""

CLASSES_KEY = b"fcn.classes"
TASKS_KEY = b"fcn.tasks"


def with_metadata(
    schema: pa.Schema,
    *,
    classes: ClassList | None = None,
    tasks: Mapping[str, ClassList] | None = None,
    extra: Mapping[str, str] | None = None,
) -> pa.Schema:
    """The schema with its Hugging Face features, class lists and further text metadata.

    ``tasks`` are the class lists of further labels by the names of their columns.
    """
    features = {field.name: _feature(field.type) for field in schema}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    if classes is not None:
        metadata[CLASSES_KEY.decode()] = json.dumps(classes.to_dict())
    if tasks:
        listed = {name: task.to_dict() for name, task in tasks.items()}
        metadata[TASKS_KEY.decode()] = json.dumps(listed)
    return schema.with_metadata({**metadata, **(extra or {})})


def classes_of(schema: pa.Schema) -> ClassList | None:
    """The class list that `with_metadata` stored, or None. Raises SpecError if it is damaged."""
    stored = (schema.metadata or {}).get(CLASSES_KEY)
    return None if stored is None else ClassList.from_dict(json.loads(stored))


def tasks_of(schema: pa.Schema) -> dict[str, ClassList]:
    """The further labels' class lists, by column. Raises SpecError if one is damaged."""
    stored = json.loads((schema.metadata or {}).get(TASKS_KEY, b"{}"))
    return {name: ClassList.from_dict(value) for name, value in stored.items()}


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if kind == IMAGE:
        return {"_type": "Image"}
    if pa.types.is_list(kind):
        return {"_type": "List", "feature": _feature(kind.value_type)}
    return {"_type": "Value", "dtype": "float64" if pa.types.is_float64(kind) else str(kind)}
