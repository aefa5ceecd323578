"""What one would write instead of the segment job: a DataLoader, an eager FCN-8s, PNG files.

    python -m benchmarks.peer --input s3://bucket/archive --checkpoint folder --output folder

Run by `benchmarks.throughput`; images come from the store one by one, batch 1, since sizes differ.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import boto3
import numpy as np
import torch
import tyro
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.inference import Plain
from fcn_model import checkpoint


@dataclass(frozen=True, kw_only=True)
class Options:
    """Segment a bucket's folder of images into PNG files."""

    input: str
    """s3://bucket/prefix."""
    checkpoint: Path
    """Of an FCN-8s VGG16, of any width."""
    output: Path
    """Folder for the masks."""
    workers: int = 2
    """Processes that fetch and decode."""


class Archive(Dataset[tuple[str, np.ndarray]]):
    """Images of a prefix; every worker has a client of its own."""

    def __init__(self, uri: str) -> None:
        self.bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        pages = boto3.client("s3").get_paginator("list_objects_v2")
        found = pages.paginate(Bucket=self.bucket, Prefix=f"{prefix}/")
        self.keys = [item["Key"] for page in found for item in page.get("Contents", [])]
        self.client = None

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[str, np.ndarray]:
        if self.client is None:
            self.client = boto3.client("s3")
        key = self.keys[index]
        data = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()  # type: ignore[attr-defined]
        return Path(key).name, np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def main() -> None:
    """Run the program."""
    options = tyro.cli(Options, description=__doc__)
    network, config = checkpoint.load(options.checkpoint)
    segment = Plain(network, config)
    options.output.mkdir(parents=True, exist_ok=True)
    loader = DataLoader(Archive(options.input), batch_size=None, num_workers=options.workers)
    for name, pixels in loader:
        mask = segment(np.asarray(pixels))
        Image.fromarray(mask).save((options.output / name).with_suffix(".png"))
    print(f"{torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
