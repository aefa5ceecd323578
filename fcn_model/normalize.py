"""From uint8 pixels to what a network was trained on; the only place that knows BGR."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fcn_model.errors import SpecError

if TYPE_CHECKING:
    from torch import Tensor

ChannelOrder = Literal["rgb", "bgr"]


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """``(value * scale - mean) / std`` for each channel; with ``log``, of log(value) instead.

    ``mean`` and ``std`` have one number for each channel of the network's input, in its order
    (``channel_order``; ``rgb`` keeps the file's), after ``scale`` and ``log``. A value of 0, which
    says that a depth is unknown, counts as 1 under ``log``.
    Raises SpecError naming the field and its value.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    scale: float
    channel_order: ChannelOrder
    log: bool = False

    def __post_init__(self) -> None:
        if not self.mean or not np.isfinite(self.mean).all():
            raise SpecError(f"mean must be finite numbers, one a channel, got {self.mean!r}")
        if len(self.std) != self.channels or not np.isfinite(self.std).all():
            raise SpecError(f"std must be {self.channels} finite numbers, got {self.std!r}")
        if min(self.std) <= 0:
            raise SpecError(f"std must be positive, got {self.std!r}")
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise SpecError(f"scale must be a positive number, got {self.scale!r}")
        if self.channel_order not in get_args(ChannelOrder):
            raise SpecError(f"channel_order must be 'rgb' or 'bgr', got {self.channel_order!r}")
        if self.channel_order == "bgr" and self.channels != 3:
            raise SpecError(f"channel_order 'bgr' needs 3 channels, mean has {self.channels}")

    @property
    def channels(self) -> int:
        """Channels of the input that it makes."""
        return len(self.mean)

    @property
    def dtype(self) -> str:
        """The type of the pixels that it takes."""
        return "uint16" if self.log else "uint8"

    def __call__(self, image_HWC: NDArray[Any] | Tensor) -> Tensor:
        """Float32 (C, H, W) or (N, C, H, W) of images (H, W, C) or (N, H, W, C).

        Images are uint8, RGB where they have colours; with ``log`` uint16. An image of one channel
        may also be (H, W). A tensor stays on its device. The result is channels-last in memory.
        Raises ValueError for another dtype or shape.
        """
        import torch  # noqa: PLC0415  (who only reads a config does not wait for it)

        shape = tuple(image_HWC.shape)
        if self.channels == 1 and len(shape) == 2:
            image_HWC = image_HWC[..., None]
        right_type = str(image_HWC.dtype).removeprefix("torch.") == self.dtype
        if not right_type or image_HWC.ndim not in (3, 4) or image_HWC.shape[-1] != self.channels:
            raise ValueError(
                f"images to normalize must be {self.dtype} (H, W, {self.channels}) or "
                f"(N, H, W, {self.channels}), got {image_HWC.dtype} {shape}"
            )
        if self.log:
            image_HWC = _log(image_HWC)
        # One multiplication and one addition: value * (scale / std) - mean / std.
        factor = ((1 if self.log else self.scale) / np.array(self.std)).astype(np.float32)
        offset = np.log(self.scale) if self.log else 0.0
        shift = ((offset - np.array(self.mean)) / np.array(self.std)).astype(np.float32)
        bgr = self.channel_order == "bgr"
        if isinstance(image_HWC, torch.Tensor):
            image_HWC, device = image_HWC.flip(-1) if bgr else image_HWC, image_HWC.device
            values = image_HWC * torch.from_numpy(factor).to(device)
            values += torch.from_numpy(shift).to(device)
        else:
            ordered_HWC = image_HWC[..., ::-1] if bgr else image_HWC
            values = torch.from_numpy(_scaled(ordered_HWC, factor, shift))
        return values.movedim(-1, -3)

    def to_dict(self) -> dict[str, Any]:
        """A value that JSON can hold; `from_dict` reads it back."""
        value = {**asdict(self), "mean": list(self.mean), "std": list(self.std)}
        if not self.log:
            del value["log"]  # came later: what has none keeps its digest
        return value

    @classmethod
    def from_dict(cls, value: object) -> Normalization:
        """Read what `to_dict` wrote. Raises SpecError if a field is missing or of a wrong type."""
        try:
            assert isinstance(value, Mapping)
            mean, std = ([float(number) for number in value[field]] for field in ("mean", "std"))
            return cls(
                mean=tuple(mean),
                std=tuple(std),
                scale=float(value["scale"]),
                channel_order=value["channel_order"],
                log=bool(value.get("log", False)),
            )
        except SpecError:
            raise
        except (AssertionError, KeyError, IndexError, TypeError, ValueError) as error:
            raise SpecError(
                'a normalization is a JSON object {"mean": [C], "std": [C], "scale": number, '
                f'"channel_order": "rgb" or "bgr"}}; got {str(value)[:200]!r} ({error!r})'
            ) from error


def minus_mean(*mean: float, channel_order: ChannelOrder = "bgr") -> Normalization:
    """What the reference's nets read: 0..255 minus the mean, in ``channel_order``."""
    return Normalization(mean=mean, std=(1.0,) * len(mean), scale=1.0, channel_order=channel_order)


def _scaled(
    image_HWC: NDArray[Any], factor_C: NDArray[np.float32], shift_C: NDArray[np.float32]
) -> NDArray[np.float32]:
    """``image * factor + shift``, row by row: channels alone make loops of three elements."""
    *_, width, channels = image_HWC.shape
    rows = np.ascontiguousarray(image_HWC).reshape(*image_HWC.shape[:-2], width * channels)
    scaled = np.multiply(rows, np.tile(factor_C, width), dtype=np.float32)
    scaled += np.tile(shift_C, width)
    return scaled.reshape(image_HWC.shape)


def _log(image: NDArray[Any] | Tensor) -> NDArray[Any] | Tensor:
    if isinstance(image, np.ndarray):
        return np.log(np.maximum(image, 1, dtype=np.float32))
    return image.float().clamp(min=1).log()


TORCHVISION = Normalization(
    mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), scale=1 / 255, channel_order="rgb"
)
"""What torchvision's ImageNet weights expect."""

TORCHVISION_GOOGLENET = Normalization(
    mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), scale=1 / 255, channel_order="rgb"
)
"""What torchvision's GoogLeNet makes of that input before its first layer (transform_input)."""

CAFFE = minus_mean(104.00699, 116.66877, 122.67892)
"""What the published VOC nets expect: BGR in 0..255 minus the mean (``voc_layers.py``)."""

NYUD_COLOR = minus_mean(116.190, 97.203, 92.318)
NYUD_HHA = minus_mean(132.431, 94.076, 118.477, channel_order="rgb")
"""HHA keeps the channel order of its PNG (``nyud_layers.py``)."""
NYUD_DEPTH = Normalization(mean=(7.844,), std=(1.0,), scale=1.0, channel_order="rgb", log=True)
"""Log of the 16-bit PNG's value minus its mean (``nyud_layers.py``)."""

SIFT_FLOW = minus_mean(114.578, 115.294, 108.353)
PASCAL_CONTEXT = minus_mean(104.007, 116.669, 122.679)
