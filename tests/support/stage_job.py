"""A unit of files and a job for it, for tests of the stages of segmentation by themselves."""

from __future__ import annotations

from pathlib import Path

from pipelines import storage
from pipelines.masks.generation import Generation
from pipelines.segmentation.stages import Job
from pipelines.segmentation.unit_row import UnitRow
from pipelines.sources import open_source
from tests.support import made
from tests.support.tiny import save_checkpoint


def unit_of(folder: Path, files: dict[str, bytes]) -> UnitRow:
    """One unit of all the files, in the order of their names."""
    made.fill(folder, files)
    (unit,) = open_source(str(folder)).units
    return UnitRow(unit.to_json())


def job_for(folder: Path) -> Job:
    """Images of one a batch, so that each has the same arithmetic in company and alone."""
    checkpoint = folder / "checkpoint"
    config = save_checkpoint(checkpoint, seed=1)  # its masks of blocks hold several classes
    generation = Generation(
        model=config.digest, network=config.spec.name, precision="fp32", max_pixels=40_000_000
    )
    return Job(
        checkpoint=storage.parse_uri(str(checkpoint)),
        output=storage.parse_uri(str(folder / "out")),
        generation=generation,
        classes=config.class_lists[0],
        batch_pixels=1,
        tile_pixels=8_000_000,
        record_seconds=60,
        actors_per_node=1,
    )
