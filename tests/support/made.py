"""Small made data: pictures, labels and folders of them."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fcn_model.classes import ClassList
from pipelines import images

CLASSES = ClassList(names=("sky", "road", "tree"), void_id=255)


def picture(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    """(H, W, 3) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    """The pixels as PNG, which keeps them exactly."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def jpg(pixels: np.ndarray) -> bytes:
    """The pixels as JPEG."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def label(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    """(H, W) uint8 class ids with a void border on the left."""
    ids = np.random.default_rng(seed).integers(0, len(CLASSES), (height, width), dtype=np.uint8)
    ids[:, 0] = CLASSES.void_id
    return ids


def label_png(seed: int, height: int = 12, width: int = 16) -> bytes:
    """The label as palette PNG."""
    return images.encode_label(label(seed, height, width), CLASSES)


def fill(root: Path, files: dict[str, bytes]) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def pairs(root: Path, count: int) -> Path:
    """A data set of layout pairs with ``count`` images of two sizes, keys 000, 001, ..."""
    files = {"classes.json": json.dumps(CLASSES.to_dict()).encode()}
    for index in range(count):
        height = 12 + 4 * (index % 2)
        files[f"images/{index:03d}.jpg"] = jpg(picture(index, height))
        files[f"labels/{index:03d}.png"] = label_png(index, height)
    return fill(root, files)


def tar(files: Mapping[str, bytes] | list[tuple[str, bytes]], **options: Any) -> bytes:
    """A tar written by Python's tarfile, which is independent of the project's reader."""
    file = io.BytesIO()
    members = files.items() if isinstance(files, Mapping) else files
    with tarfile.open(fileobj=file, mode="w", **options) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()
