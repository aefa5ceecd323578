"""Job: everything once, on images that it makes itself."""

from __future__ import annotations

import time
from dataclasses import dataclass

from jobs.runtime import ray_session, run_job, say
from pipelines import storage
from pipelines.datasets.scenes import CLASSES, write_scenes
from pipelines.segmentation.settings import SegmentConfig
from pipelines.sources import open_source
from pipelines.train_settings import UNIT_RECORDS, Network, Solver, TrainConfig


@dataclass(frozen=True, kw_only=True)
class Quickstart:
    """Make scenes, prepare, train, segment, evaluate and report: the main job end to end.

    Everything lies under OUTPUT, which may also be an s3:// URI. Doing it again continues where it
    stopped.
    """

    output: str = "quickstart"
    """Folder or URI of everything that is made."""
    train_images: int = 420
    """Generated scenes to train on."""
    val_images: int = 40
    """Generated scenes to segment and score."""
    epochs: int = 3
    """Passes over the training scenes."""
    seed: int = 1
    """Of the scenes and of the training."""


def work(options: Quickstart) -> None:
    """Run the job."""
    started = time.monotonic()
    root = storage.parse_uri(options.output)
    for split, count in (("train", options.train_images), ("val", options.val_images)):
        write_scenes(
            _folder(options, "scenes", split), images=count, seed=options.seed, split=split
        )
    say(f"made {options.train_images} + {options.val_images} scenes of {', '.join(CLASSES.names)}")
    with ray_session():
        from pipelines.evaluation import evaluate  # noqa: PLC0415  (Ray, too)
        from pipelines.prepare import prepare  # noqa: PLC0415
        from pipelines.report import write_report  # noqa: PLC0415
        from pipelines.score_tables import write_tables  # noqa: PLC0415
        from pipelines.segmentation.night import segment  # noqa: PLC0415
        from pipelines.training import train  # noqa: PLC0415

        shards = {}
        for split in ("train", "val"):
            scenes = open_source(_folder(options, "scenes", split), unit_records=UNIT_RECORDS)
            prepared = prepare(scenes, _folder(options, "shards", split))
            shards[split] = open_source(prepared.uri, unit_records=UNIT_RECORDS)
            say(f"prepared {prepared.records} {split} images: {prepared.uri}")
        trained = train(_recipe(options, root), shards["train"], shards["val"], progress=say)
        result = segment(
            SegmentConfig(checkpoint=trained.checkpoint, output=storage.join(root, "masks")),
            shards["val"],
            progress=say,
        )
        evaluation = evaluate(result.masks, shards["val"])
        report = storage.join(root, "report")
        write_tables(evaluation, report)
        written = write_report(evaluation, shards["val"], report)
    say("\n" + evaluation.to_text())
    say(f"\nmasks:      {result.masks}")
    for name, uri in written.items():
        say(f"{name + ':':11} {uri}")
    say(f"tables:     {report}")
    say(f"checkpoint: {trained.checkpoint}")
    say(f"mean IU:    {evaluation.confusion.mean_iu:.4f} on {options.val_images} unseen scenes")
    say(f"time:       {time.monotonic() - started:.0f} s")


def _folder(options: Quickstart, kind: str, split: str) -> str:
    """Where the scenes or shards of a split lie; other scenes lie elsewhere."""
    count = options.train_images if split == "train" else options.val_images
    return storage.join(
        storage.parse_uri(options.output), kind, f"{split}-{count}-seed{options.seed}"
    )


def _recipe(options: Quickstart, root: str) -> TrainConfig:
    """A narrow FCN-8s from scratch: small enough for two cores, and not called VGG16."""
    return TrainConfig(
        storage=storage.join(root, "runs"),
        name=f"{options.train_images}-seed{options.seed}-epochs{options.epochs}",
        network=Network(width=1 / 8, fc_width=128),
        solver=Solver(
            epochs=options.epochs,
            batch_size=2,
            optimizer="adamw",
            lr=3e-3,
            weight_decay=1e-4,
            loss="mean",
            schedule="poly",
            warmup=0.05,
            precision="fp32",  # narrow layers gain nothing from bf16 on a CPU
            seed=options.seed,
        ),
    )


def main() -> None:
    """Run the command line."""
    run_job(Quickstart, work)


if __name__ == "__main__":
    main()
