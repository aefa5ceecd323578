"""One row of masks against itself: status, mask, counts; its pixels decoded and counted again."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from pipelines import images
from pipelines.errors import ImageError

STRIP_PIXELS = 1 << 20
LARGE_PIXELS = 1 << 24
"""Of masks above this, one is decoded at a time."""

_large = threading.Lock()


def wrong_in_row(
    row: dict[str, Any], mask: dict[str, Any] | None, unit: str, model: str | None
) -> str | None:
    """What is wrong with a row, apart from its mask's pixels. ``model`` is None if unknown."""
    if row["status"] not in {"ok", "error"}:
        return f"its status is {row['status']!r}"
    if row["unit"] != unit or model not in (None, row["model"]):
        return f"it is of unit {row['unit']} and model {row['model']}, not {unit} and {model}"
    ok, pixels = row["status"] == "ok", row["class_pixels"]
    if ok != (mask is not None and bool(mask["bytes"])) or ok != (pixels is not None):
        return f"its status is {row['status']!r}, which does not fit its mask and class_pixels"
    if ok == bool(row["error_kind"]):
        return f"its status is {row['status']!r} with the error kind {row['error_kind']!r}"
    if ok and sum(pixels) != row["height"] * row["width"]:
        return f"class_pixels add up to {sum(pixels)}, of {row['height']}x{row['width']} pixels"
    return None


def wrong_in_mask(data: bytes, row: dict[str, Any]) -> str | None:
    """What is wrong with a mask's pixels: it is decoded, measured and counted."""
    size = row["height"], row["width"]
    if size[0] * size[1] <= LARGE_PIXELS:
        return _wrong_pixels(data, size, row["class_pixels"])
    with _large:
        return _wrong_pixels(data, size, row["class_pixels"])


def _wrong_pixels(data: bytes, size: tuple[int, int], class_pixels: list[int]) -> str | None:
    try:
        found = images.probe(data)
        if found != size:  # known before memory is spent
            return f"its mask is {found[0]}x{found[1]}, not {size[0]}x{size[1]} pixels"
        ids = images.decode_label(data, max_pixels=max(size) ** 2)
    except ImageError as error:
        return f"its mask cannot be decoded: {error}"
    counts = np.zeros(256, np.int64)
    flat = ids.ravel()
    for start in range(0, flat.size, STRIP_PIXELS):  # bincount makes eight bytes of each
        counts += np.bincount(flat[start : start + STRIP_PIXELS], minlength=256)
    wanted = np.zeros(256, np.int64)
    wanted[: len(class_pixels)] = class_pixels
    if (counts != wanted).any():
        first = int(np.flatnonzero(counts != wanted)[0])
        return f"its mask has {counts[first]} pixels of class {first}, not {wanted[first]}"
    return None
