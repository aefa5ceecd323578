"""Real images through the whole job, from shards in a real S3 server: CamVid and PASCAL VOC.

    python -m benchmarks.real_data camvid --data ../shared/data
    python -m benchmarks.real_data voc --data ../shared/data

It starts a SeaweedFS server on loopback and runs jobs/prepare.py, train.py, segment.py,
evaluate.py and report.py as a user would. ``camvid`` fine-tunes an FCN-8s on the ImageNet VGG16
convolutions, much as the plain loop did that it is compared with: one process, two whole 480×360
images a step, mirroring, AdamW 1e-4, fc6 and fc7 fresh with 1,024 channels, validated on every
second image of val. ``voc`` trains on 64×64 windows of a few images, segments val at all its sizes,
and checks the way, not the score. A run that lies in the output folder is not trained again.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from benchmarks.running import ROOT, serving
from pipelines import checkpoint_files, cluster, storage

WEIGHTS = "vgg16_torchvision_features.fp16.npz"

PLAIN_LOOP = {316: 0.606, 738: 0.657, 1114: 0.659, 1516: 0.641}
"""Images seen → mean IU of a plain torch loop at a constant rate on two cores (given with the data,
not measured by this command)."""

PLAIN_LOOP_DECAYED = {2072: 0.704}
"""The same with a polynomial decay to zero."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Run the main job on real images and print what came out beside what a plain loop reached."""

    data_set: tyro.conf.Positional[Literal["camvid", "voc"]]
    """Which data set."""
    data: Path = ROOT.parent / "shared" / "data"
    """Folder that holds camvid/, voc2012_subset/ and weights/."""
    output: Path = Path("benchmark-output")
    """Where pictures, tables and the training history go."""
    init: str | None = None
    """Start weights; by default the ImageNet VGG16 convolutions. An earlier run's checkpoint
    directory continues it, with a new optimizer."""
    seen: int = 0
    """Images that the start weights have seen, for the table."""
    dropout: float = 0.0
    """Of fc6 and fc7; a run as short as this one does not overfit."""
    epochs: int | None = None
    """Passes over the training images; by default 2 for camvid."""
    batch_size: int = 2
    """Images a step."""
    schedule: Literal["constant", "poly"] = "poly"
    """Learning rate schedule."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of training."""


def main() -> None:
    """Run the benchmark that the command line names."""
    options = tyro.cli(Benchmark, description=__doc__)
    started = time.monotonic()
    with serving() as server:
        {"camvid": camvid, "voc": voc}[options.data_set](options, server.uri(options.data_set))
    print(f"in all {time.monotonic() - started:.0f} s")


def camvid(options: Benchmark, root: str) -> None:
    """Fine-tune on train, choose by every second val image, segment and score all of val."""
    epochs = options.epochs or 2
    folder = options.data / "camvid"
    with every_second(folder, "val") as halved:
        _job("prepare", "--input", halved, "--split", "val", "--output", f"{root}/half")
    for split in ("train", "val"):
        _job("prepare", "--input", folder, "--split", split, "--output", f"{root}/{split}")
    _train(
        options,
        root,
        *["--train", f"{root}/train", "--val", f"{root}/half"],
        *["--fc-width", 1024, "--schedule", options.schedule, "--epochs", epochs],
        *["--dropout", options.dropout],
    )
    score = _segment_and_score(options, root)
    history = json.loads((options.output / "camvid" / "history.json").read_text())
    print(
        f"\n{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{cluster.versions()}"
    )
    print(f"rate: {options.schedule}\n")
    print("images seen   mean IU, every 2nd val image   images/s in training")
    for index, entry in enumerate(history):
        before = history[index - 1]["images"] if index else 0
        rate = (entry["images"] - before) / entry["train_seconds"]
        print(f"{entry['images'] + options.seen:11}   {entry['mean_iu']:28.3f}   {rate:20.2f}")
    print("\na plain loop on the same images (constant rate; * decayed):")
    for images, reached in (PLAIN_LOOP | PLAIN_LOOP_DECAYED).items():
        print(f"{images:11}   {reached:28.3f} {'*' if images in PLAIN_LOOP_DECAYED else ''}")
    print(f"\nall of val, fp32, by jobs/segment.py and jobs/evaluate.py: mean IU {score:.3f}")


def voc(options: Benchmark, root: str) -> None:
    """Ingest the subset, train on small windows, segment and score val at all its sizes."""
    folder = options.data / "voc2012_subset"
    for split, count in (("train", 60), ("val", 10)):
        with first(folder, split, count) as few:
            _job("prepare", "--input", few, "--split", split, "--output", f"{root}/few-{split}")
    for split in ("train", "val"):
        _job("prepare", "--input", folder, "--split", split, "--output", f"{root}/{split}")
    _train(
        options,
        root,
        *["--train", f"{root}/few-train", "--val", f"{root}/few-val"],
        *["--fc-width", 256, "--epochs", options.epochs or 1, "--crop", 64, 64],
    )
    score = _segment_and_score(options, root)
    print(f"\nall 125 images of val, every size: mean IU {score:.3f}")


def every_second(folder: Path, split: str) -> tempfile.TemporaryDirectory[str]:
    """A CamVid folder with every second pair of a split."""
    holder = tempfile.TemporaryDirectory()
    lines = (folder / f"{split}.txt").read_text().splitlines()[::2]
    (Path(holder.name) / f"{split}.txt").write_text("\n".join(lines))
    for line in lines:
        for file in line.split():
            target = Path(holder.name) / file
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(folder / file, target)
    return holder


def first(folder: Path, split: str, count: int) -> tempfile.TemporaryDirectory[str]:
    """A VOC folder with the first images of a split."""
    holder = tempfile.TemporaryDirectory()
    listed = Path(f"ImageSets/Segmentation/{split}.txt")
    names = (folder / listed).read_text().split()[:count]
    (Path(holder.name) / listed.parent).mkdir(parents=True)
    (Path(holder.name) / listed).write_text("\n".join(names))
    for name in names:
        for file in (Path(f"JPEGImages/{name}.jpg"), Path(f"SegmentationClass/{name}.png")):
            (Path(holder.name) / file.parent).mkdir(exist_ok=True)
            shutil.copyfile(folder / file, Path(holder.name) / file)
    return holder


def _train(options: Benchmark, root: str, *arguments: object) -> None:
    """Fine-tune into S3, and copy the checkpoint and the history to the output folder."""
    folder = options.output / options.data_set
    if (folder / "history.json").exists():
        print(f"{folder} holds a trained run; it is used as it is")
        return
    _job(
        "train",
        *["--storage", f"{root}/runs", "--name", options.data_set],
        *["--init", options.init or options.data / "weights" / WEIGHTS],
        *["--optimizer", "adamw", "--lr", "1e-4", "--loss", "mean"],
        *["--batch-size", options.batch_size, "--precision", options.precision],
        *arguments,
    )
    (folder / "checkpoint").mkdir(parents=True)
    run = f"{root}/runs/{options.data_set}"
    for name in checkpoint_files.FILES:
        (folder / "checkpoint" / name).write_bytes(storage.read_bytes(f"{run}/best/{name}"))
    (folder / "history.json").write_bytes(storage.read_bytes(f"{run}/history.json"))


def _segment_and_score(options: Benchmark, root: str) -> float:
    """Segment, evaluate and report val; returns the mean IU and leaves the report in output."""
    report = options.output / options.data_set
    checkpoint = report / "checkpoint"
    _job(
        "segment",
        *["--input", f"{root}/val", "--checkpoint", checkpoint, "--output", f"{root}/out"],
        *["--unit-records", "32"],
    )
    masks = ["--masks", f"{root}/out", "--labels", f"{root}/val"]
    _job("evaluate", *masks, "--output", f"{root}/scores")
    _job("report", *masks, "--output", report)
    print(f"tables, pictures and report: {report}")
    import pyarrow.parquet as pq  # noqa: PLC0415

    return float(pq.read_table(report / "summary.parquet")["mean_iu"][0].as_py())


def _job(name: str, *arguments: object) -> float:
    """Run a job as a user would; returns its seconds."""
    started = time.monotonic()
    command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *map(str, arguments)]
    print(f"\n$ python jobs/{name}.py {' '.join(command[2:])}", flush=True)
    subprocess.run(command, check=True, cwd=ROOT)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
