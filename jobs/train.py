"""Job: fine-tune an FCN on labelled images."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.options import Layout
from jobs.runtime import ray_session, run_job, say
from pipelines.sources import open_source
from pipelines.train_settings import UNIT_RECORDS, TrainConfig


@dataclass(frozen=True, kw_only=True)
class Train:
    """Fine-tune a Fully Convolutional Network; keep the checkpoint with the best mean IU.

    The run is kept under STORAGE/NAME; the same name again resumes it. The checkpoint to segment
    with is STORAGE/NAME/best.
    """

    train: str
    """Folder or URI of the labelled training images: shards, or a layout that prepare reads."""
    val: str
    """Folder or URI of the labelled validation images."""
    layout: Layout = "auto"
    """How both are laid out; auto looks."""
    train_split: str | None = None
    """Training split, where the layout has splits."""
    val_split: str | None = None
    """Validation split, where the layout has splits."""
    run: TrainConfig


def work(options: Train) -> None:
    """Run the job."""
    sources = [
        open_source(uri, layout=options.layout, split=split, unit_records=UNIT_RECORDS)
        for uri, split in ((options.train, options.train_split), (options.val, options.val_split))
    ]
    with ray_session():
        from pipelines.training import train  # noqa: PLC0415  (Ray reads the environment first)

        result = train(options.run, sources[0], sources[1], progress=say)
    say(f"checkpoint: {result.checkpoint}")
    say(f"mean IU: {result.mean_iu:.4f} (validation, epoch {result.epoch})")


def main() -> None:
    """Run the command line."""
    run_job(Train, work)


if __name__ == "__main__":
    main()
