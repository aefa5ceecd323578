"""From uint8 images to uint8 masks: batch images of like size, cut large ones, take the argmax."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcn_model import checkpoint
from fcn_model.inputs import Image, Sample, samples
from fcn_model.kept import Kept
from fcn_model.lanes import Lanes
from fcn_model.layers import Conv
from fcn_model.masks import Classified, classified, masks
from fcn_model.model_config import ModelConfig
from fcn_model.network import FCN
from fcn_model.outcomes import Exhausted, Outcome, OutOfMemoryError, attempt
from fcn_model.replays import Replays
from fcn_model.tile_plans import Strip, TilePlan, plans
from fcn_model.tiling import coarse_scores

Precision = Literal["fp32", "bf16"]

BUCKET = 32
"""Images whose height and width agree after rounding up to this many pixels share a batch."""


class Segmenter:
    """Segments images of any size one by one, or many at once with the same results.

    The network is taken over: moved to ``device`` (by default a GPU if there is one), put into
    channels-last memory and evaluation mode. With ``precision="fp32"`` a GPU's TF32 convolutions
    are turned off, for the whole process. With ``precision="bf16"`` a copy of the network is used,
    whose trunk computes in bfloat16 and whose scores are float32. Weights that change afterwards
    need a segmenter of their own, since what follows from them alone is computed once. Of several
    tasks ``task`` names the one to segment, by default the first.

    Two numbers bound memory, in pixels of the largest feature map of a pass, that of the padded
    first convolution: full-width VGG16 holds 0.5 kB for each in fp32. Images share a batch up to
    ``batch_pixels``; one that is larger by itself makes a batch of its own. An image beyond
    ``tile_pixels`` is cut into tiles (see `tile_plan`), which give the mask of the whole.

    On CPUs ``lanes`` batches are computed at a time, which together keep to the larger of the two
    numbers; what is too large for that, or too little, is computed with all threads (see `Lanes`).
    """

    def __init__(  # noqa: PLR0913  (six of them have a default)
        self,
        network: FCN,
        config: ModelConfig,
        *,
        device: torch.device | str | None = None,
        precision: Precision = "fp32",
        batch_pixels: int = 1_000_000,
        tile_pixels: int = 4_000_000,
        task: str | None = None,
        lanes: int = 1,
    ) -> None:
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be 'fp32' or 'bf16', got {precision!r}")
        numbers = {"batch_pixels": batch_pixels, "tile_pixels": tile_pixels, "lanes": lanes}
        for name, number in numbers.items():
            if number < 1:
                raise ValueError(f"{name} must be positive, got {number}")
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        names = [each.name for each in config.spec.tasks]
        if task is not None and task not in names:
            raise ValueError(f"task must be one of {names}, got {task!r}")
        self.task = 0 if task is None else names.index(task)
        self.config = config
        self.device = torch.device(device)
        if self.device.type == "cuda" and precision == "fp32":
            torch.backends.cudnn.allow_tf32 = False
        self.batch_pixels = batch_pixels
        self.tile_pixels = tile_pixels
        self._lanes = Lanes(lanes if self.device.type == "cpu" else 1)
        if precision == "bf16":
            network = copy.deepcopy(network)
            for layer in network.children():
                if isinstance(layer, Conv):
                    layer.to(torch.bfloat16)
        self._kept = Kept()
        self.network = network.to(self.device).to(memory_format=torch.channels_last).eval()
        self._head, self._layers = network.heads[self.task], dict(network.named_children())
        self._replays = Replays(self.classes)

    def __call__(self, image_HW3: Image, **planes: NDArray[Any]) -> Image:
        """The (H, W) uint8 mask of an (H, W, 3) uint8 RGB image, any H and W from 1.

        ``planes`` are the further inputs of a network that has some, by the names of its config:
        ``depth`` (H, W) uint16, ``hha`` (H, W, 3) uint8. Raises ValueError for another dtype or
        shape, and for planes that are missing or not known; NonFiniteError, a ValueError, where
        scores are infinite or not a number; OutOfMemoryError, a MemoryError, where not even the
        smallest tiles fit into memory.
        """
        (outcome,) = self.batch([image_HW3], [planes])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def batch(
        self, images: Sequence[Image], planes: Sequence[Mapping[str, NDArray[Any]]] | None = None
    ) -> list[Outcome]:
        """The masks of images of any sizes, in their order; ``planes`` has those of each image.

        Every mask is the one its image has alone, whatever else is in the batch: neither fill nor
        neighbours enter it, and only the rounding of kernels chosen by batch shape can differ
        (5e-5 of a score in fp32 on a CPU). An image that cannot have a mask has in its place the
        NonFiniteError or OutOfMemoryError that it raises alone. Where memory runs out, the batch is
        halved; a single image is cut into tiles, each time of half as many pixels. Raises
        ValueError naming the image that is no (H, W, 3) uint8 array.
        """
        ready = samples(self.config, images, [{}] * len(images) if planes is None else planes)
        shared, large = self._dealt(ready)

        def work(members: Sequence[int]) -> list[Outcome]:
            return self._outcomes([ready[index] for index in members])

        done = [*self._lanes.each(work, shared), *self._lanes.alone(work, large)]
        outcomes: dict[int, Outcome] = {}
        for members, each in zip([*shared, *large], done, strict=True):
            outcomes.update(zip(members, each, strict=True))
        return [outcomes[index] for index in range(len(images))]

    @torch.inference_mode()
    def classes(
        self, batch_NCHW: Tensor, sizes: Sequence[tuple[int, int]] | None = None
    ) -> Classified:
        """One pass of normalized images (N, C, H, W) of unequal ``sizes``, left on the device."""
        height, width = batch_NCHW.shape[2:]
        coarse_NKhw = self.network.coarse(batch_NCHW, sizes, self._kept, task=self.task)
        return classified(self._head, self._layers, coarse_NKhw, (height, width))

    def _dealt(self, ready: Sequence[Sample]) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
        """Batches of which several can be computed at a time, the largest first, and the others."""
        room = max(self.batch_pixels, self.tile_pixels) // self._lanes.count
        shared: list[tuple[int, Sequence[int]]] = []
        large: list[Sequence[int]] = []
        for members in self._batches(ready):
            pixels = len(members) * max(self._pixels(ready[index].size) for index in members)
            if pixels <= room:
                shared.append((pixels, members))
            else:
                large.append(members)
        shared.sort(key=lambda batch: -batch[0])
        return [members for _, members in shared], large

    def _batches(self, ready: Sequence[Sample]) -> Iterator[Sequence[int]]:
        """Indices that go through the network together: one bucket, within the budget."""
        buckets: dict[tuple[int, int], list[int]] = {}
        for index, sample in enumerate(ready):
            if self._pixels(sample.size) > self.tile_pixels:
                yield [index]
                continue
            height, width = (-(-size // BUCKET) * BUCKET for size in sample.size)
            buckets.setdefault((height, width), []).append(index)
        for size, members in buckets.items():
            most = max(1, self.batch_pixels // self._pixels(size))
            yield from self._lanes.even(members, most)

    def _pixels(self, size: tuple[int, int]) -> int:
        """What an image of ``size`` takes of a budget in one pass."""
        first = self.network.backbone.steps[0].geometry
        return first.output_size(size[0]) * first.output_size(size[1])

    def _outcomes(self, chosen: Sequence[Sample]) -> list[Outcome]:
        """Of a batch in one pass, or in as many as memory demands."""
        if len(chosen) == 1 and self._pixels(chosen[0].size) > self.tile_pixels:
            return [self._tiled(chosen[0])]
        outcomes = attempt(partial(self._together, chosen))
        if not isinstance(outcomes, Exhausted):
            return outcomes
        if len(chosen) == 1:
            return [self._tiled(chosen[0], outcomes)]
        middle = len(chosen) // 2
        return [*self._outcomes(chosen[:middle]), *self._outcomes(chosen[middle:])]

    def _tiled(self, sample: Sample, whole: Exhausted | None = None) -> Outcome:
        """By tiles, the smaller the less memory there is; ``whole`` says that one pass failed."""
        pixels, exhausted = self._pixels(sample.size), whole
        budget, below = (self.tile_pixels, pixels + 1) if whole is None else (pixels // 2, pixels)
        for plan in plans(self.config.spec, sample.size, budget, below=below):
            outcome = attempt(partial(self._by_tiles, sample, plan))
            if not isinstance(outcome, Exhausted):
                return outcome
            exhausted = outcome
        assert exhausted is not None, "every image has a plan"
        height, width = sample.size
        return OutOfMemoryError(
            f"an image of {height} x {width} pixels (height x width) needs more memory than there "
            f"is on {self.device} even in the smallest tiles; give it more, or use a narrower "
            f"network or precision 'bf16' ({exhausted.message})"
        )

    @torch.inference_mode()
    def _together(self, chosen: Sequence[Sample]) -> list[Outcome]:
        sizes = [sample.size for sample in chosen]
        height, width = (max(size[axis] for size in sizes) for axis in range(2))
        batch_NCHW = self._zeros(len(chosen), height, width)
        for slot_CHW, sample in zip(batch_NCHW, chosen, strict=True):
            sample.write(slot_CHW[:, : sample.size[0], : sample.size[1]])
        alike = all(size == (height, width) for size in sizes)
        found = self._replays(batch_NCHW) if alike else self.classes(batch_NCHW, sizes)
        return masks(self._head, self._layers, found, sizes)

    @torch.inference_mode()
    def _by_tiles(self, sample: Sample, plan: TilePlan) -> Outcome:
        """One tile after another into the mask; scores of more than a tile are never held."""
        mask_HW = np.empty(sample.size, np.uint8)
        for rows, columns in plan.tiles:
            block = self._block(sample, rows, columns, plan.pad)
            if isinstance(block, Exception):
                return block
            mask_HW[rows.begin : rows.end, columns.begin : columns.end] = block
        return mask_HW

    def _block(self, sample: Sample, rows: Strip, columns: Strip, pad: int) -> Outcome:
        """One tile; its tensors are gone when the next one begins."""
        window_NCHW = self._zeros(1, rows.stop - rows.start, columns.stop - columns.start)
        top, left = max(0, rows.start - pad), max(0, columns.start - pad)
        inside_CHW = window_NCHW[0, :, max(0, pad - rows.start) :, max(0, pad - columns.start) :]
        sample.write(
            inside_CHW[:, : sample.size[0] - top, : sample.size[1] - left], top=top, left=left
        )
        coarse_NKhw = coarse_scores(self.network, window_NCHW, task=self.task, kept=self._kept)
        size = rows.end - rows.begin, columns.end - columns.begin
        skipped = rows.begin - rows.start, columns.begin - columns.start
        found = classified(self._head, self._layers, coarse_NKhw, size, skipped=skipped)
        (block,) = masks(
            *(self._head, self._layers, found, [size]),
            skipped=skipped,
            origin=(rows.begin, columns.begin),
        )
        return block

    def _zeros(self, count: int, height: int, width: int) -> Tensor:
        trunk = next(self.network.parameters())
        shape = (count, self.config.spec.in_channels, height, width)
        return torch.empty(
            shape, dtype=trunk.dtype, device=self.device, memory_format=torch.channels_last
        ).zero_()


def load_segmenter(directory: str | Path, **options: Any) -> Segmenter:
    """The segmenter of a checkpoint directory; ``options`` are those of `Segmenter`.

    Raises CheckpointError in one line if the checkpoint is incomplete or damaged.
    """
    network, config = checkpoint.load(Path(directory))
    return Segmenter(network, config, **options)
