"""What a unit's stages hold in memory is gone when the unit is."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines import images
from pipelines.decoding import MEASURED
from pipelines.segmentation.inference import Infer
from pipelines.segmentation.stages import decoded, encode_and_commit, fetch_and_decode
from pipelines.segmentation.unit_row import Item, UnitRow
from tests.support import made
from tests.support.stage_job import job_for, unit_of


def watched(function: Callable[..., Any], seen: list[weakref.ref[Any]]) -> Callable[..., Any]:
    """``function``, and references to the arrays that it gives, which keep none alive."""

    def call(*arguments: Any, **options: Any) -> Any:
        made = function(*arguments, **options)
        arrays = made if isinstance(made, list) else [made]
        seen.extend(weakref.ref(array) for array in arrays)
        return made

    return call


def test_pixels_and_masks_do_not_outlive_their_unit(tmp_path: Path, monkeypatch) -> None:
    # pyarrow 26 never lets go of a view that it made an array of: each image would stay for ever.
    files = {f"{index}.png": made.png(made.picture(index)) for index in range(3)}
    row, job = unit_of(tmp_path / "images", files), job_for(tmp_path)
    network = Infer(job)
    pixels: list[weakref.ref[Any]] = []
    masks: list[weakref.ref[Any]] = []
    monkeypatch.setattr(images, "decode_image", watched(images.decode_image, pixels))
    monkeypatch.setattr(network.segmenter, "batch", watched(network.segmenter.batch, masks))

    table = pa.Table.from_pylist([row.new()])
    receipt = encode_and_commit(network(fetch_and_decode(table, job)), job)

    assert "committed" in receipt["receipt"][0].as_py()
    gc.collect()
    assert [len(pixels), len(masks)] == [3, 3]
    assert [each() for each in (*pixels, *masks)] == [None] * 6


def test_planes_do_not_outlive_their_table(tmp_path: Path, monkeypatch) -> None:
    depth, picture = np.full((4, 5), 7, np.uint16), made.picture(0, 4, 5)
    seen: list[weakref.ref[Any]] = []
    monkeypatch.setitem(MEASURED, "depth", watched(lambda _data: depth.copy(), seen))
    encoded = Item("k", "u", "e", "encoded", made.png(picture), (b"d",))
    job = replace(job_for(tmp_path), planes=("depth",))
    row = UnitRow("{}", items=[decoded(encoded, job)])
    (back,) = UnitRow.from_table(row.to_table()).items
    assert bytes(back.planes[0]) == depth.tobytes()
    assert bytes(back.data) == picture.tobytes()
    del row, back
    gc.collect()
    assert [each() for each in seen] == [None]
