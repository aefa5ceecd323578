"""Labelled data and masks of it, small and random."""

from __future__ import annotations

import numpy as np

from fcn_model import ClassList
from pipelines import images, storage
from pipelines.masks import parts
from pipelines.masks.generation import PartName
from pipelines.schemas import MASKS

CLASSES = ClassList(names=("sky", "road", "car"))


def labelled(folder, count=5, seed=0, shape=(6, 9)):
    """Folder pairs with random labels, and a random mask for each."""
    rng = np.random.default_rng(seed)
    masks = {}
    for index in range(count):
        key = f"i{index}"
        label = rng.integers(0, 3, shape, dtype=np.uint8)
        label[0, :4] = CLASSES.void_id
        storage.create(f"{folder}/labels/{key}.png", images.encode_label(label, CLASSES))
        image = np.zeros((*shape, 3), np.uint8)[:, :, 0]
        storage.create(f"{folder}/images/{key}.png", images.encode_mask(image, CLASSES))
        masks[key] = (label, rng.integers(0, 3, shape, dtype=np.uint8))
    text = b'{"names": ["sky", "road", "car"]}'
    storage.create(f"{folder}/classes.json", text)
    return masks


def write_part(folder, number, masks, *, model="digest", errors=(), encode=None):
    rows = []
    for record, (key, mask) in enumerate(masks):
        row = dict.fromkeys(MASKS.names, "") | {
            "key": key,
            "height": mask.shape[0],
            "width": mask.shape[1],
            "mask": {
                "bytes": encode(mask) if encode else images.encode_mask(mask, CLASSES),
                "path": f"{key}.png",
            },
            "class_pixels": [0, 0, 0],
            "status": "ok",
            "attempts": 1,
            "transient": False,
            "model": model,
            "record": record,
        }
        if key in errors:
            row |= {"mask": None, "class_pixels": None, "status": "error"}
        rows.append(row)
    name = PartName(f"{number:016x}", "0" * 16).file
    uri = storage.join(folder, name)
    storage.create(uri, parts.encode_part(rows, {"part": number}, CLASSES))
    return storage.stat(uri)
