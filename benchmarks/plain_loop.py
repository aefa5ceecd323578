"""The peer of training on CamVid: a plain torch loop, one process, everything in memory.

    python -m benchmarks.plain_loop --data DATA --seeds 1 2 3 4

What one would write in an afternoon: an FCN-8s-like net on the ImageNet VGG16 convolutions with
padding 1, fresh 7x7 and 1x1 layers of 1,024 channels, zero scores, bilinear interpolation, AdamW at
a constant rate, batches of two whole images in an order drawn anew each pass, mirroring, bfloat16.
Prints mean IU on every second image of val for each seed, since one run says little: seeds differ
by several points. `benchmarks.real_data` is our jobs on the same images.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
import tyro
from PIL import Image
from torch import Tensor, nn

from benchmarks.machine import describe
from fcn_model.metrics import Confusion
from fcn_model.normalize import TORCHVISION
from fcn_model.precision import has_bf16
from fcn_model.weights import read_weights

ROOT = Path(__file__).parents[1]
WEIGHTS = "vgg16_torchvision_features.fp16.npz"
CLASSES, VOID = 11, 11
BLOCKS = (2, 2, 3, 3, 3)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train the plain net, once for each seed."""

    data: Path = ROOT.parent / "shared" / "data"
    """Folder that holds camvid/ and weights/."""
    seeds: tuple[int, ...] = (1,)
    """Of fresh layers, order and mirroring."""
    marks: tuple[int, ...] = (316, 738)
    """Images seen at which to score; the last ends the run."""
    lr: float = 1e-4
    """Learning rate."""


class Plain(nn.Module):
    """FCN-8s as people write it: padding 1 everywhere, interpolation instead of deconvolution."""

    def __init__(self, weights: Path) -> None:
        super().__init__()
        given = read_weights(weights.read_bytes(), weights.name)
        numbers = sorted({int(name.split(".")[1]) for name in given})
        self.convolutions = nn.ModuleList()
        for number in numbers:
            weight = given[f"features.{number}.weight"].float()
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            layer.load_state_dict(
                {"weight": weight, "bias": given[f"features.{number}.bias"].float()}
            )
            self.convolutions.append(layer)
        self.fc6, self.fc7 = nn.Conv2d(512, 1024, 7, padding=3), nn.Conv2d(1024, 1024, 1)
        self.scores = nn.ModuleList(nn.Conv2d(n, CLASSES, 1) for n in (1024, 512, 256))
        for parameter in self.scores.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (N, K, H, W) of normalized images."""
        size, pools, layers = x.shape[2:], [], iter(self.convolutions)
        for count in BLOCKS:
            for _ in range(count):
                x = F.relu(next(layers)(x))
            x = F.max_pool2d(x, 2, 2, ceil_mode=True)
            pools.append(x)
        y = self.scores[0](F.relu(self.fc7(F.relu(self.fc6(x)))))
        for score, pool in zip(self.scores[1:], (pools[3], pools[2]), strict=True):
            y = F.interpolate(y, size=pool.shape[2:], mode="bilinear") + score(pool)
        return F.interpolate(y.float(), size=size, mode="bilinear")


def main() -> None:
    """Print a line for each seed, and the mean."""
    options = tyro.cli(Options, description=__doc__)
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "no GPU"
    print(f"{device}, {describe()}\n")
    train, val = (
        _load(options.data / "camvid", "train", 1),
        _load(options.data / "camvid", "val", 2),
    )
    columns = "".join(f"{mark:>10}" for mark in options.marks)
    print(f"images seen{columns}", flush=True)
    found = []
    for seed in options.seeds:
        found.append(list(_run(seed, options, train, val)))
        print(f"seed {seed:<6}{''.join(f'{score:10.4f}' for score in found[-1])}", flush=True)
    if len(found) > 1:
        for name, of in (("mean", statistics.mean), ("deviation", statistics.stdev)):
            values = "".join(f"{of(scores):10.4f}" for scores in zip(*found, strict=True))
            print(f"{name:11}{values}")


def _load(folder: Path, split: str, every: int) -> tuple[Tensor, Tensor]:
    """Images (N, H, W, 3) and labels (N, H, W), uint8."""
    lines = (folder / f"{split}.txt").read_text().split("\n")[::every]
    pairs = [line.split() for line in lines if line]
    images, labels = (
        torch.from_numpy(np.stack([np.asarray(Image.open(folder / pair[i])) for pair in pairs]))
        for i in range(2)
    )
    return images.to(DEVICE), labels.to(DEVICE)


def _run(
    seed: int, options: Options, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor]
) -> Iterator[float]:
    """Mean IU at each mark."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    network = Plain(options.data / "weights" / WEIGHTS).to(DEVICE)
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=options.lr)
    order: list[int] = []
    for seen in range(2, options.marks[-1] + 1, 2):
        if len(order) < 2:
            order = random.permutation(len(train[0])).tolist()
        chosen = [order.pop(), order.pop()]
        images, labels = train[0][chosen], train[1][chosen].long()
        for index in range(2):
            if random.random() < 0.5:
                images[index], labels[index] = images[index].flip(1), labels[index].flip(1)
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(_scores(network, images), labels, ignore_index=VOID).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if seen in options.marks:
            yield _score(network, val)


def _scores(network: Plain, images_NHW3: Tensor) -> Tensor:
    images = TORCHVISION(images_NHW3).contiguous(memory_format=torch.channels_last)
    with torch.autocast(DEVICE.type, torch.bfloat16, enabled=has_bf16(DEVICE)):
        scores: Tensor = network(images)
    return scores


@torch.no_grad()
def _score(network: Plain, val: tuple[Tensor, Tensor]) -> float:
    confusion = Confusion(CLASSES)
    for image, label in zip(*val, strict=True):
        mask = _scores(network, image[None]).argmax(1)
        confusion.update(label[None].cpu().numpy(), mask.cpu().numpy(), VOID)
    return confusion.mean_iu


if __name__ == "__main__":
    main()
