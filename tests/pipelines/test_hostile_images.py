"""Every broken or odd file of ../shared/data/hostile is a right image or an error with a kind.

What is right follows from the folder's manifest: what an independent look with Pillow found, and
this project's own rules where Pillow is silently wrong. Others like them are made by hand in
`tests/pipelines/image_files`.
"""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines import images
from pipelines.errors import ImageError

pytestmark = pytest.mark.shared_data

STRICTER = {
    "bad_crc_idat.png": "truncated",  # Pillow compares no checksum of pixels
    "gray_alpha16.png": "unsupported_mode",  # all black in its colours, which Pillow shows
}


def expectation(entry: dict[str, Any]) -> str:
    """The kind of error that the manifest makes us expect, or 'ok'."""
    found = entry["pillow_13"]
    if entry["file"] in STRICTER:
        return STRICTER[entry["file"]]
    if entry["odd"].startswith("0 bytes"):
        return "empty"
    if isinstance(found["open"], str):
        error = found["open"].split(":")[0]
        kinds = {"DecompressionBombError": "too_large", "UnidentifiedImageError": "not_an_image"}
        return kinds.get(error, "truncated" if "Truncated" in found["open"] else "not_an_image")
    width, height = found["open"]["size"]
    if found["load"] != "ok":
        return "truncated"
    return "too_large" if width * height > images.DEFAULT_MAX_PIXELS else "ok"


def test_every_hostile_file_is_a_right_image_or_an_error_with_a_kind(shared_data: Path) -> None:
    folder = shared_data / "hostile"
    manifest = json.loads((folder / "manifest.json").read_text())
    outcomes: dict[str, list[str]] = {}
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for entry in manifest:
        data = (folder / entry["file"]).read_bytes()
        expected = expectation(entry)
        outcomes.setdefault(expected, []).append(entry["file"])
        if expected == "ok":
            check_picture(entry, data)
            continue
        with pytest.raises(ImageError) as caught:
            images.decode_image(data)
        assert caught.value.kind == expected, entry["file"]
    assert {kind: len(files) for kind, files in outcomes.items()} == {
        "ok": 20,
        "too_large": 3,
        "not_an_image": 6,
        "truncated": 6,
        "unsupported_mode": 1,
        "empty": 1,
    }
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 100_000


def check_picture(entry: dict[str, Any], data: bytes) -> None:
    """Compare with the manifest: upright size, and mean colour unless Pillow's is known wrong."""
    decoded = images.decode_image(data)
    width, height = entry["pillow_13"]["size_after_exif_transpose"]
    assert decoded.shape == (height, width, 3), entry["file"]
    assert images.probe(data) == (height, width), entry["file"]
    mean = decoded.reshape(-1, 3).mean(axis=0)
    if entry["pillow_13"]["open"]["mode"].startswith("I;16"):
        assert entry["pillow_13"]["mean_rgb"] == [255, 255, 255], "Pillow's silent white"
        assert decoded.max() - decoded.min() > 200
    else:
        np.testing.assert_allclose(mean, entry["pillow_13"]["mean_rgb"], atol=1.01)


def test_sixteen_bit_grey_is_the_upper_half_of_the_stored_value(shared_data: Path) -> None:
    path = shared_data / "hostile" / "gray16.png"
    with Image.open(path) as image:
        stored = np.asarray(image)
    decoded = images.decode_image(path.read_bytes())
    np.testing.assert_array_equal(decoded[:, :, 0], stored >> 8)
