"""NYUDv2's labelled file, ``nyu_depth_v2_labeled.mat``, one image at a time.

It is HDF5 (MATLAB 7.3) of 3 GB: ``images`` uint8, ``depths`` float in metres, ``labels`` uint16 of
0, unlabelled, and 1..894. MATLAB counts columns first, so that HDF5 has (N, 3, W, H) and (N, W, H):
every plane lies transposed. Image i of MATLAB, from 1, has the key 5000 + i, which is how Gupta et
al. and the paper number them.
"""

from __future__ import annotations

import gc
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import h5py
import numpy as np
from PIL import Image

from fcn_model.errors import FCNError
from pipelines import storage
from pipelines.errors import InputError
from pipelines.label_rules import PNG_IDS, LabelRule
from pipelines.records import LABEL, Record
from pipelines.storage import ObjectRef

FIRST_KEY = 5001

READ_BYTES = 1 << 20
"""The least that is fetched at a time; HDF5 itself asks for a few bytes here and there."""


@contextmanager
def opened(ref: ObjectRef) -> Iterator[h5py.File]:
    """The file, its three arrays checked; what HDF5 raises about its bytes becomes InputError."""
    with storage.open_ranged(ref) as raw, _no_collection():
        source = io.BufferedReader(cast(io.RawIOBase, raw), READ_BYTES)
        try:
            with h5py.File(source, "r") as file:
                _check(file)
                yield file
        except FCNError:
            raise  # the store's own errors, and those about content, pass through unchanged
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{ref.uri} is no labelled file of NYUDv2: {reason}") from error


@contextmanager
def _no_collection() -> Iterator[None]:
    """No garbage collection by any thread.

    h5py holds a lock while it reads from us, and takes the same lock to free what belongs to it: a
    thread of the store that came to collect such garbage would wait for us, and we for it.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _check(file: h5py.File) -> None:
    count = _array(file, "images", "u", 4).shape[0]
    width, height = file["images"].shape[2:]
    if file["images"].shape[1] != 3:
        raise ValueError(f"images are {file['images'].shape}; wanted are (N, 3, W, H)")
    for name, kind in (("depths", "f"), ("labels", "u")):
        array = _array(file, name, kind, 3)
        if array.shape != (count, width, height):
            raise ValueError(f"{name} are {array.shape}, images {file['images'].shape}")


def _array(file: h5py.File, name: str, kind: str, axes: int) -> h5py.Dataset:
    """A dataset that lies in the file itself: HDF5 may point to any other file of the machine."""
    link = file.get(name, getlink=True)
    array = file[name] if isinstance(link, h5py.HardLink) else None
    if not isinstance(array, h5py.Dataset) or array.external or array.is_virtual:
        raise ValueError(f"there is no array {name!r} that lies in the file itself")
    if array.dtype.kind != kind or array.ndim != axes:
        raise ValueError(f"{name!r} is {array.dtype} of shape {array.shape}")
    return array


def count_images(ref: ObjectRef) -> int:
    """How many images the file holds. Raises InputError if it is not such a file."""
    with opened(ref) as file:
        return int(file["images"].shape[0])


def record_bytes(ref: ObjectRef) -> int:
    """The uncompressed size of one image, its depth and its label."""
    with opened(ref) as file:
        _, channels, width, height = file["images"].shape
        return int(channels + 2 + 2) * int(width) * int(height)


def read_nyu(
    ref: ObjectRef,
    keys: Sequence[str],
    rule: LabelRule,
    planes: Sequence[str] | None = (),
    *,
    images: bool = True,
) -> list[Record]:
    """Some images as PNG with their labels as PNG of ids, and, if wanted, their ``depth``.

    Depth becomes 16-bit PNG in millimetres, as in Gupta's data: 0 for what was not measured, and
    65,535 for anything farther. One image is in memory at a time. Raises InputError (LabelError)
    for a file or label that is not as it should be, and what the store raises.
    """
    if wrong := [name for name in planes or () if name != "depth"]:
        raise InputError(f"{ref.uri} has a depth plane only; {wrong[0]!r} is wanted")
    records = []
    with opened(ref) as file:
        count = file["images"].shape[0]
        for key in keys:
            index = int(key) - FIRST_KEY
            if not 0 <= index < count:
                raise InputError(f"{ref.uri} has {count} images; there is no image {key}")
            ids = rule.ids(file["labels"][index].T, f"image {key} ({ref.uri})")
            pixels = _png(file["images"][index].transpose(2, 1, 0)) if images else b""
            found = {}
            if planes is None or "depth" in planes:
                found["depth"] = _png(millimetres(file["depths"][index].T))
            record = Record(
                *(key, ref.uri, ref.etag, pixels, _png(ids)), planes=found, rules={LABEL: PNG_IDS}
            )
            records.append(record)
    return records


def millimetres(metres: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Depth in metres as uint16 millimetres; 0 for what is not a positive number."""
    known = np.where(np.isfinite(metres) & (metres > 0), metres.astype(np.float64), 0)
    return np.clip(np.rint(known * 1000), 0, 65535).astype(np.uint16)


def _png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(file, "PNG")
    return file.getvalue()
