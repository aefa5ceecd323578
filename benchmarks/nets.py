"""Several nets fine-tuned on CamVid with one recipe, staged and at once, side by side.

    python -m benchmarks.nets --data DATA --nets googlenet-32s googlenet-16s googlenet-8s

For each net it runs jobs/train.py with the recipe ``camvid-fcn8s`` (whole images, AdamW, a rate
that falls to zero), then jobs/segment.py and jobs/evaluate.py on all of val in fp32, on plain
folders. A staged net (16s, 8s) starts from the coarser one's best checkpoint, so name that before
it; the others start from the ImageNet weights in DATA/weights. Prints mean IU and every class's IU,
and draws the curves as curves.png. What lies in the output folder is not done again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import tyro

from benchmarks import curves, machine
from pipelines.sources import open_source

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Net:
    """One net: what it is, and which weights or which earlier net it starts from."""

    start: str
    options: tuple[str, ...]
    coarser: str | None = None


VGG16 = Net("vgg16_torchvision_features.fp16.npz", ("--backbone", "vgg16"))
ALEXNET = Net("alexnet_torchvision_features.fp16.npz", ("--backbone", "alexnet"))
GOOGLENET = Net(
    "googlenet_bvlc_caffe.fp16.npz",
    ("--backbone", "googlenet", "--normalization", "caffe", "--fc-width", "4096"),
)
AT_ONCE = ("--skip-scales", "0.01", "0.0001")


def _family(name: str, net: Net) -> dict[str, Net]:
    """FCN-32s, then 16s and 8s by stages, and 8s at once."""

    def headed(head: str, coarser: str | None, more: tuple[str, ...] = ()) -> Net:
        return replace(net, options=(*net.options, "--head", head, *more), coarser=coarser)

    return {
        f"{name}-32s": headed("fcn32s", None),
        f"{name}-16s": headed("fcn16s", f"{name}-32s"),
        f"{name}-8s": headed("fcn8s", f"{name}-16s"),
        f"{name}-8s-atonce": headed("fcn8s", None, AT_ONCE),
    }


NETS = _family("vgg16", VGG16) | _family("alexnet", ALEXNET) | _family("googlenet", GOOGLENET)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Fine-tune nets on CamVid and compare them."""

    data: Path = ROOT.parent / "shared" / "data"
    """Folder that holds camvid/ and weights/."""
    output: Path = Path("benchmark-output") / "nets"
    """Where shards, runs, tables and curves.png go."""
    nets: tuple[str, ...] = tuple(NETS)
    """Which nets, in this order."""
    epochs: int = 1
    """Passes of each over the training images."""
    every: int = 1
    """Of the 367 training images every so-manieth is used, for machines without a GPU."""
    lr: float = 1e-4
    """Learning rate of every stage."""


def main() -> None:
    """Train, segment, score and compare."""
    options = tyro.cli(Options, description=__doc__)
    unknown = [name for name in options.nets if name not in NETS]
    if unknown:
        sys.exit(f"error: {unknown[0]} is none of {', '.join(NETS)}")
    out = options.output.absolute()
    for split, unused in (("train", _unused(options, out)), ("val", ())):
        _job(
            "prepare",
            *["--input", options.data / "camvid", "--split", split],
            *["--output", out / "shards" / split, *unused],
        )
    scores = {name: _score(name, options, out) for name in options.nets}
    print(f"\n{machine.describe('ray')}")
    _print_table(scores, {name: _images(name, out) for name in options.nets})
    histories = {name: _history(name, out) for name in options.nets}
    (out / "curves.png").write_bytes(curves.draw(histories))
    print(f"curves: {out / 'curves.png'}")


def _unused(options: Options, out: Path) -> list[object]:
    """The arguments that leave out all training images but every so-manieth."""
    if options.every == 1:
        return []
    source = open_source(str(options.data / "camvid"), split="train")
    keys = [key for unit in source.units for key in unit.keys]
    out.mkdir(parents=True, exist_ok=True)
    unused = [key for index, key in enumerate(keys) if index % options.every]
    (out / "unused.txt").write_text("\n".join(unused))
    return ["--exclude", out / "unused.txt"]


def _score(name: str, options: Options, out: Path) -> dict[str, float]:
    """The IU of every class and their mean, on all of val, after training if that is not done."""
    net, run = NETS[name], out / "runs" / name
    start = options.data / "weights" / net.start
    if net.coarser:
        start = out / "runs" / net.coarser / "best"
    shards, scores = out / "shards", out / "scores" / name
    if not (run / "history.json").exists():
        _job(
            "train",
            *["--recipe", "camvid-fcn8s", *net.options, "--init", start],
            *["--train", shards / "train", "--val", shards / "val"],
            *["--storage", out / "runs", "--name", name],
            *["--epochs", options.epochs, "--lr", options.lr],
        )
    if not (scores / "summary.parquet").exists():
        _job(
            "segment",
            *["--input", shards / "val", "--checkpoint", run / "best"],
            *["--output", out / "masks" / name],
        )
        masks = ["--masks", out / "masks" / name, "--labels", shards / "val"]
        _job("evaluate", *masks, "--output", scores)
    classes = pq.read_table(scores / "per_class.parquet").to_pylist()
    mean = pq.read_table(scores / "summary.parquet")["mean_iu"][0].as_py()
    return {"mean IU": mean, **{row["name"]: row["iu"] for row in classes}}


def _history(name: str, out: Path) -> list[dict[str, float]]:
    """The run's epochs, counted from the images that its start weights had seen."""
    coarser = NETS[name].coarser
    before = _images(coarser, out) if coarser else 0
    entries = json.loads((out / "runs" / name / "history.json").read_text())
    return [{**entry, "images": entry["images"] + before} for entry in entries]


def _images(name: str, out: Path) -> int:
    """Images that a net has seen, its earlier stages included."""
    return int(_history(name, out)[-1]["images"])


def _print_table(scores: dict[str, dict[str, float]], images: dict[str, int]) -> None:
    rows = list(next(iter(scores.values())))
    width = max(map(len, [*rows, "images seen"]))

    def line(title: str, values: Iterable[str]) -> None:
        cells = (
            f"{value:>{max(len(name), 6)}}" for name, value in zip(scores, values, strict=True)
        )
        print(f"{title:{width}}  {'  '.join(cells)}")

    line("", scores)
    line("images seen", (str(images[name]) for name in scores))
    for row in rows:
        line(row, (f"{values[row]:.3f}" for values in scores.values()))


def _job(name: str, *arguments: object) -> None:
    """Run a job as a user would."""
    command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *map(str, arguments)]
    print(f"\n$ python jobs/{name}.py {' '.join(command[2:])}", flush=True)
    subprocess.run(command, check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
