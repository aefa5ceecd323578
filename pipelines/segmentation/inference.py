"""The network's stage of bulk segmentation: an actor that holds it and masks unit after unit.

Only this stage needs torch, which is loaded where the actor is, so that neither the driver nor the
workers that decode and encode wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

import fcn_model
from pipelines import cluster
from pipelines.decoding import PLANE_PIXELS
from pipelines.segmentation.stages import Job, decoded, encoded, run_stage
from pipelines.segmentation.unit_row import Item, UnitRow
from pipelines.segmentation.watchdog import time_limit

if TYPE_CHECKING:
    from fcn_model import Outcome

SENT_PIXELS = 64 << 20
"""Larger masks leave the network's process encoded; Ray's object store is not made for them."""

LANES = 2
"""Batches that a CPU's cores compute at a time; each takes memory for its maps."""


class Infer:
    """Actor: the network. Loaded once, then one unit after another."""

    def __init__(self, job: Job) -> None:
        started = time.monotonic()
        import torch  # noqa: PLC0415

        from pipelines import checkpoints  # noqa: PLC0415

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # Units are computed in another thread. If this one had helpers, too, there would be more of
        # them than cores, and then OpenMP lets all of them sleep between two operators.
        torch.set_num_threads(1)
        network, config = checkpoints.load(job.checkpoint)
        if config.digest != job.generation.model:
            raise RuntimeError(
                f"checkpoint {job.checkpoint} changed during the run: it was "
                f"{job.generation.model}, now it is {config.digest}"
            )
        threads = cluster.threads_each(job.actors_per_node)
        self.job = job
        self.segmenter = fcn_model.Segmenter(
            network,
            config,
            device=device,
            precision=job.generation.precision,
            batch_pixels=job.batch_pixels,
            tile_pixels=job.tile_pixels,
            task=job.generation.task or None,
            lanes=LANES if threads > 1 else 1,
        )
        if device.type == "cpu":
            torch.set_num_threads(threads)
        self._loading = time.monotonic() - started

    def __call__(self, table: pa.Table) -> pa.Table:
        """Replace every image of the unit by its mask."""
        row = UnitRow.from_table(table)
        run_stage(row, "network", lambda: self._segment(row.items))
        if self._loading:  # told with the first unit
            row.seconds["load"], self._loading = round(self._loading, 4), 0.0
        return row.to_table()

    def _segment(self, items: list[Item]) -> None:
        ready = [index for index, item in enumerate(items) if item.form == "rgb"]
        self._masks(items, ready)
        for index, item in enumerate(items):
            if item.form == "encoded":  # beyond the unit's memory budget: one at a time
                with time_limit(self.job.record_seconds):
                    items[index] = decoded(item, self.job)
                if items[index].form == "rgb":
                    self._masks(items, [index])

    def _masks(self, items: list[Item], indices: Sequence[int]) -> None:
        pixels = [_pixels(items[index].data, items[index], np.uint8, (3,)) for index in indices]
        planes = [
            {
                name: _pixels(data, items[index], *PLANE_PIXELS[name])
                for name, data in zip(self.job.planes, items[index].planes, strict=True)
            }
            for index in indices
        ]
        for index, outcome in zip(indices, self.segmenter.batch(pixels, planes), strict=True):
            items[index] = self._done(items[index], outcome)

    def _done(self, item: Item, outcome: Outcome) -> Item:
        """The item with its mask, or as the error row that it becomes without."""
        if isinstance(outcome, Exception):
            kind = (
                "not_finite" if isinstance(outcome, fcn_model.NonFiniteError) else "out_of_memory"
            )
            return item.failed(kind, str(outcome))
        done = replace(item, form="mask", data=outcome.tobytes(), planes=())
        return encoded(done, self.job.classes) if outcome.size > SENT_PIXELS else done


def _pixels(data: Any, item: Item, kind: type[np.generic], axes: tuple[int, ...]) -> Any:
    """Pixels that travelled as bytes, as a view."""
    return np.frombuffer(data, kind).reshape(item.height, item.width, *axes)
