"""From uint8 pixels to what a network was trained on; the only place that knows BGR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fcn_model.errors import SpecError

Triple = tuple[float, float, float]
ChannelOrder = Literal["rgb", "bgr"]


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """``(value * scale - mean) / std`` for each channel.

    ``mean`` and ``std`` stand in the network's channel order (``channel_order``), after ``scale``.
    Raises SpecError naming the field and its value.
    """

    mean: Triple
    std: Triple
    scale: float
    channel_order: ChannelOrder

    def __post_init__(self) -> None:
        for field in ("mean", "std"):
            values = getattr(self, field)
            if len(values) != 3 or not np.isfinite(values).all():
                raise SpecError(f"{field} must be three finite numbers, got {values!r}")
        if min(self.std) <= 0:
            raise SpecError(f"std must be positive, got {self.std!r}")
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise SpecError(f"scale must be a positive number, got {self.scale!r}")
        if self.channel_order not in get_args(ChannelOrder):
            raise SpecError(f"channel_order must be 'rgb' or 'bgr', got {self.channel_order!r}")

    def __call__(self, image_HW3: NDArray[np.uint8] | Tensor) -> Tensor:
        """Float32 (3, H, W) or (N, 3, H, W) of uint8 RGB images (H, W, 3) or (N, H, W, 3).

        A tensor stays on its device. The result is channels-last in memory.
        Raises ValueError for another dtype or shape.
        """
        is_tensor = isinstance(image_HW3, Tensor)
        right_type = image_HW3.dtype == (torch.uint8 if is_tensor else np.uint8)
        if not right_type or image_HW3.ndim not in (3, 4) or image_HW3.shape[-1] != 3:
            raise ValueError(
                "images to normalize must be uint8 (H, W, 3) or (N, H, W, 3), "
                f"got {image_HW3.dtype} {tuple(image_HW3.shape)}"
            )
        # One multiplication and one addition: value * (scale / std) - mean / std.
        factor = (self.scale / np.array(self.std)).astype(np.float32)
        shift = (-np.array(self.mean) / np.array(self.std)).astype(np.float32)
        if self.channel_order == "bgr":
            factor, shift = factor[::-1], shift[::-1]
        if isinstance(image_HW3, Tensor):
            device = image_HW3.device
            values = image_HW3 * torch.from_numpy(factor.copy()).to(device)
            values += torch.from_numpy(shift.copy()).to(device)
        else:
            array = np.multiply(image_HW3, factor, dtype=np.float32, order="C")
            array += shift
            values = torch.from_numpy(array)
        if self.channel_order == "bgr":
            values = values.flip(-1)
        return values.movedim(-1, -3)

    def to_dict(self) -> dict[str, Any]:
        """A value that JSON can hold; `from_dict` reads it back."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, value: object) -> Normalization:
        """Read what `to_dict` wrote. Raises SpecError if a field is missing or of a wrong type."""
        try:
            assert isinstance(value, Mapping)
            mean, std = ([float(number) for number in value[field]] for field in ("mean", "std"))
            return cls(
                mean=(mean[0], mean[1], mean[2]),
                std=(std[0], std[1], std[2]),
                scale=float(value["scale"]),
                channel_order=value["channel_order"],
            )
        except SpecError:
            raise
        except (AssertionError, KeyError, IndexError, TypeError, ValueError) as error:
            raise SpecError(
                'a normalization is a JSON object {"mean": [3], "std": [3], "scale": number, '
                f'"channel_order": "rgb" or "bgr"}}; got {str(value)[:200]!r} ({error!r})'
            ) from error


TORCHVISION = Normalization(
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), scale=1 / 255, channel_order="rgb"
)
"""What torchvision's ImageNet weights expect."""

CAFFE = Normalization(
    mean=(104.00699, 116.66877, 122.67892), std=(1.0, 1.0, 1.0), scale=1.0, channel_order="bgr"
)
"""What the published VOC nets expect: BGR in 0..255 minus the mean (``voc_layers.py``)."""
