"""The network's stage of bulk segmentation: an actor that holds it and masks unit after unit.

Only this stage imports torch, so that the workers which decode and encode start quickly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from fcn_model import Segmenter
from pipelines import checkpoints, cluster
from pipelines.ingest import PLANE_PIXELS
from pipelines.segmentation.stages import Item, Job, UnitRow, decoded, run_stage


class Infer:
    """Actor: the network. Loaded once, then one unit after another."""

    def __init__(self, job: Job) -> None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if device.type == "cpu":
            # Ray gives a one-CPU actor one thread.
            torch.set_num_threads(max(1, cluster.usable_cores() // job.actors_per_node))
        network, config = checkpoints.load(job.checkpoint)
        if config.digest != job.generation.model:
            raise RuntimeError(
                f"checkpoint {job.checkpoint} changed during the run: it was "
                f"{job.generation.model}, now it is {config.digest}"
            )
        self.job = job
        self.segmenter = Segmenter(
            network,
            config,
            device=device,
            precision=job.generation.precision,
            batch_pixels=job.batch_pixels,
            task=job.generation.task or None,
        )

    def __call__(self, table: pa.Table) -> pa.Table:
        """Replace every RGB image of the unit by its mask."""
        row = UnitRow.from_table(table)

        def work() -> None:
            ready = [index for index, item in enumerate(row.items) if item.form == "rgb"]
            self._masks(row.items, ready)
            for index, item in enumerate(row.items):
                if item.form == "encoded":  # beyond the unit's memory budget: one at a time
                    row.items[index] = decoded(item, self.job)
                    self._masks(row.items, [index] if row.items[index].form == "rgb" else [])

        run_stage(row, "network", work)
        return row.to_table()

    def _masks(self, items: list[Item], indices: Sequence[int]) -> None:
        pixels = [_pixels(items[index].data, items[index], np.uint8, (3,)) for index in indices]
        planes = [
            {
                name: _pixels(data, items[index], *PLANE_PIXELS[name])
                for name, data in zip(self.job.planes, items[index].planes, strict=True)
            }
            for index in indices
        ]
        try:
            masks = self.segmenter.batch(pixels, planes)
        except (torch.OutOfMemoryError, MemoryError):
            if len(indices) == 1:
                raise
            torch.cuda.empty_cache()
            for index in indices:
                self._masks(items, [index])
            return
        for index, mask in zip(indices, masks, strict=True):
            items[index] = replace(items[index], form="mask", data=mask.tobytes(), planes=())


def _pixels(data: Any, item: Item, kind: type[np.generic], axes: tuple[int, ...]) -> Any:
    """Pixels that travelled as bytes, as a view."""
    return np.frombuffer(data, kind).reshape(item.height, item.width, *axes)
