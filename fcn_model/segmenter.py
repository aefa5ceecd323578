"""From uint8 images to uint8 masks: normalize, batch images of like size, take the argmax."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcn_model import checkpoint
from fcn_model.checkpoint import ModelConfig
from fcn_model.layers import Conv
from fcn_model.network import FCN
from fcn_model.normalize import Normalization

Precision = Literal["fp32", "bf16"]
Image = NDArray[np.uint8]

BUCKET = 32
"""Images whose height and width agree after rounding up to this many pixels share a batch."""


class Segmenter:
    """Segments images one by one, or many at once with the same results.

    The network is taken over: moved to ``device`` (by default a GPU if there is one), put into
    channels-last memory and evaluation mode. With ``precision="fp32"`` a GPU's TF32 convolutions
    are turned off, for the whole process. With ``precision="bf16"`` a copy of the network is used,
    whose trunk computes in bfloat16 and whose scores are float32. ``batch_pixels`` bounds the
    pixels of the largest feature map of a batch, that of the padded first convolution; an image
    that is larger by itself makes a batch of its own. Of several tasks ``task`` names the one to
    segment, by default the first.
    """

    def __init__(
        self,
        network: FCN,
        config: ModelConfig,
        *,
        device: torch.device | str | None = None,
        precision: Precision = "fp32",
        batch_pixels: int = 1_000_000,
        task: str | None = None,
    ) -> None:
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision must be 'fp32' or 'bf16', got {precision!r}")
        if batch_pixels < 1:
            raise ValueError(f"batch_pixels must be positive, got {batch_pixels}")
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
        if precision == "bf16":
            network = copy.deepcopy(network)
            for layer in network.children():
                if isinstance(layer, Conv):
                    layer.to(torch.bfloat16)
        self.network = network.to(self.device).to(memory_format=torch.channels_last).eval()

    def __call__(self, image_HW3: Image, **planes: NDArray[Any]) -> Image:
        """The (H, W) uint8 mask of an (H, W, 3) uint8 RGB image, any H and W from 1.

        ``planes`` are the further inputs of a network that has some, by the names of its config:
        ``depth`` (H, W) uint16, ``hha`` (H, W, 3) uint8. Raises ValueError for another dtype or
        shape, and for planes that are missing or not known.
        """
        return self.batch([image_HW3], [planes])[0]

    def batch(
        self, images: Sequence[Image], planes: Sequence[Mapping[str, NDArray[Any]]] | None = None
    ) -> list[Image]:
        """The masks of images of any sizes, in their order; ``planes`` has those of each image.

        Every mask is the one its image has alone, whatever else is in the batch: neither fill nor
        neighbours enter it, and only the rounding of kernels chosen by batch shape can differ
        (5e-5 of a score in fp32 on a CPU). Raises ValueError naming the image that is no
        (H, W, 3) uint8 array.
        """
        planes = [{}] * len(images) if planes is None else planes
        if len(planes) != len(images):
            raise ValueError(
                f"planes must be given for every image: {len(images)} images, {len(planes)} planes"
            )
        for index, (image, further) in enumerate(zip(images, planes, strict=True)):
            _check(image, index)
            self._check_planes(image, further, index)
        masks: dict[int, Image] = {}
        for members in self._batches(images):
            chosen = [(images[index], planes[index]) for index in members]
            masks.update(zip(members, self._run(chosen), strict=True))
        return [masks[index] for index in range(len(images))]

    def _batches(self, images: Sequence[Image]) -> Iterator[list[int]]:
        """Indices that go through the network together: one bucket, within the budget."""
        buckets: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            height, width = (-(-size // BUCKET) * BUCKET for size in image.shape[:2])
            buckets.setdefault((height, width), []).append(index)
        first = self.network.backbone.steps[0].geometry
        for (height, width), members in buckets.items():
            pixels = first.output_size(height) * first.output_size(width)
            count = max(1, self.batch_pixels // pixels)
            for start in range(0, len(members), count):
                yield members[start : start + count]

    @torch.inference_mode()
    def _run(self, images: Sequence[tuple[Image, Mapping[str, NDArray[Any]]]]) -> list[Image]:
        sizes = [(image.shape[0], image.shape[1]) for image, _ in images]
        height, width = (max(size[axis] for size in sizes) for axis in range(2))
        trunk = next(self.network.parameters())
        batch = torch.zeros(
            (len(images), self.config.spec.in_channels, height, width),
            dtype=trunk.dtype,
            device=self.device,
        ).contiguous(memory_format=torch.channels_last)
        for slot, (image, planes), (h, w) in zip(batch, images, sizes, strict=True):
            first = planes[self.config.image_plane] if self.config.image_plane else image
            parts = [self._normalized(first, self.config.normalization)]
            for name, normalization in self.config.planes:
                parts.append(self._normalized(planes[name], normalization))
            slot[:, :h, :w] = torch.cat(parts) if len(parts) > 1 else parts[0]
        scores_NKHW = self.config.spec.split(self.network(batch, sizes))[self.task]
        masks_NHW = scores_NKHW.argmax(dim=1).to(torch.uint8).cpu().numpy()
        return [mask[:h, :w].copy() for mask, (h, w) in zip(masks_NHW, sizes, strict=True)]

    def _normalized(self, image: NDArray[Any], normalization: Normalization) -> Tensor:
        if self.device.type == "cpu":
            return normalization(image)
        # A quarter of the bytes to move, and the arithmetic where it is cheap.
        pixels = torch.from_numpy(np.array(image, order="C")).to(self.device)
        return normalization(pixels)

    def _check_planes(self, image: Image, planes: Mapping[str, NDArray[Any]], index: int) -> None:
        wanted = list(self.config.needs)
        if sorted(planes) != sorted(wanted):
            raise ValueError(
                f"image {index} needs the planes {wanted} for {self.config.spec.name}, "
                f"got {sorted(planes)}"
            )
        inputs = dict(self.config.planes) | {self.config.image_plane: self.config.normalization}
        for name, plane in planes.items():
            made = inputs[name]
            shape = (*image.shape[:2], *([made.channels] if made.channels > 1 else []))
            if not isinstance(plane, np.ndarray) or (str(plane.dtype), plane.shape) != (
                made.dtype,
                shape,
            ):
                raise ValueError(
                    f"plane {name!r} of image {index} must be {made.dtype} {shape}, height and "
                    f"width those of its image, got {_described(plane)}"
                )


def load_segmenter(directory: str | Path, **options: Any) -> Segmenter:
    """The segmenter of a checkpoint directory; ``options`` are those of `Segmenter`.

    Raises CheckpointError in one line if the checkpoint is incomplete or damaged.
    """
    network, config = checkpoint.load(Path(directory))
    return Segmenter(network, config, **options)


def _check(image: object, index: int) -> None:
    fits = (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and image.size > 0
    )
    if not fits:
        raise ValueError(
            f"image {index} must be a (H, W, 3) uint8 RGB array of at least one pixel, "
            f"got {_described(image)}"
        )


def _described(image: object) -> str:
    return f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
