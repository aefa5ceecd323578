"""An image and its planes, checked, and normalized window by window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcn_model.model_config import ModelConfig
from fcn_model.normalize import Normalization

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """What the network sees of one image: arrays of its ``size``, and how each is normalized."""

    size: tuple[int, int]
    inputs: tuple[tuple[NDArray[Any], Normalization], ...]

    def write(self, target_Chw: Tensor, top: int = 0, left: int = 0) -> None:
        """Fill ``target_Chw`` with the normalized pixels from (top, left) on; no other is read.

        It is of the device and type that the network takes.
        """
        height, width = target_Chw.shape[1:]
        channel = 0
        for pixels_HWC, normalization in self.inputs:
            part = pixels_HWC[top : top + height, left : left + width]
            end = channel + normalization.channels
            if target_Chw.device.type == "cpu":
                target_Chw[channel:end] = normalization(part)
            else:
                # A quarter of the bytes to move, and the arithmetic where it is cheap.
                moved = torch.from_numpy(np.array(part, order="C")).to(target_Chw.device)
                target_Chw[channel:end] = normalization(moved)
            channel = end


def samples(
    config: ModelConfig, images: Sequence[Image], planes: Sequence[Mapping[str, NDArray[Any]]]
) -> list[Sample]:
    """Images with the planes of each, as ``config`` has them in its network's input.

    Raises ValueError naming the image that is no (H, W, 3) uint8 array, the plane that is missing,
    not known or of another type or shape, and images and planes that are not as many.
    """
    if len(planes) != len(images):
        raise ValueError(
            f"planes must be given for every image: {len(images)} images, {len(planes)} planes"
        )
    checked = []
    for index, (image, further) in enumerate(zip(images, planes, strict=True)):
        _check(image, index)
        _check_planes(config, image, further, index)
        first = further[config.image_plane] if config.image_plane else image
        others = tuple((further[name], made) for name, made in config.planes)
        size = (image.shape[0], image.shape[1])
        checked.append(Sample(size, ((first, config.normalization), *others)))
    return checked


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


def _check_planes(
    config: ModelConfig, image: Image, planes: Mapping[str, NDArray[Any]], index: int
) -> None:
    wanted = list(config.needs)
    if sorted(planes) != sorted(wanted):
        raise ValueError(
            f"image {index} needs the planes {wanted} for {config.spec.name}, got {sorted(planes)}"
        )
    inputs = dict(config.planes) | {config.image_plane: config.normalization}
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


def _described(image: object) -> str:
    return f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
