"""The layers that VGG-style FCNs are made of, each with the initialization that lets it train."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fcn_model.convolution import KeptWeights, convolve, rectified
from fcn_model.geometry import Layer


class Conv(nn.Conv2d):
    """A convolution followed by a ReLU, fresh weights after He et al.

    The variance 2 / fan-in keeps the scale of activations through the depth of VGG16 without batch
    normalization, so that a net without pretrained weights trains. Biases start at zero.
    """

    def reset_parameters(self) -> None:
        """Draw the weights from torch's random state; see `network.build` for the seed.

        On the meta device there is nothing to draw, and torch would load its compiler to say so,
        which takes as long as to load torch.
        """
        if self.weight.is_meta:
            return
        nn.init.kaiming_normal_(self.weight, mode="fan_in", nonlinearity="relu")
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(
        self, input_NChw: Tensor, padding: int | None = None, kept: KeptWeights | None = None
    ) -> Tensor:
        """(N, C, h, w) -> (N, channels, ...), without the ReLU; arguments as `convolve`'s."""
        return convolve(self, input_NChw, padding=padding, kept=kept)

    def rectified(
        self, input_NChw: Tensor, padding: int | None = None, kept: KeptWeights | None = None
    ) -> Tensor:
        """The convolution and its ReLU, where no gradient is wanted."""
        if self._forward_hooks or self._forward_pre_hooks:
            return F.relu_(self(input_NChw, padding, kept))
        return rectified(self, input_NChw, padding=padding, kept=kept)


class Variant(nn.Module):
    """A convolution, by its own parameters, with another padding or with kept weights."""

    layer: Conv
    padding: int | None
    kept: KeptWeights | None

    def __init__(
        self, layer: nn.Module, *, padding: int | None = None, kept: KeptWeights | None = None
    ) -> None:
        super().__init__()
        if isinstance(layer, Variant):
            padding = layer.padding if padding is None else padding
            kept = layer.kept if kept is None else kept
            layer = layer.layer
        assert isinstance(layer, Conv)
        self.layer, self.padding, self.kept = layer, padding, kept

    def forward(self, input_NChw: Tensor) -> Tensor:
        """As `Conv.forward`."""
        return self.layer(input_NChw, self.padding, self.kept)

    def rectified(self, input_NChw: Tensor) -> Tensor:
        """As `Conv.rectified`."""
        return self.layer.rectified(input_NChw, self.padding, self.kept)


class Score(nn.Conv2d):
    """A 1x1 convolution to class scores, zero at first as Caffe's default filler leaves it.

    The mean loss before the first step is therefore ln K, and a fresh skip changes nothing.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__(channels, num_classes, 1)

    def reset_parameters(self) -> None:
        """Set weights and biases to zero."""
        assert self.bias is not None
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, input_NChw: Tensor) -> Tensor:
        """Scores of (N, C, h, w) features, in the precision of the parameters.

        Scores leave autocast: eight bits of mantissa would tie neighbouring classes, and the maps
        are small here.
        """
        with torch.autocast(input_NChw.device.type, enabled=False):
            return super().forward(input_NChw.to(self.weight.dtype))


def bilinear_kernel(size: int) -> Tensor:
    """The (size, size) float32 kernel that interpolates bilinearly (surgery.py of the reference).

    One-dimensional weights are ``1 - |i - centre| / f`` with ``f = (size + 1) // 2``.
    """
    weights = _bilinear_weights(size)
    return torch.outer(weights, weights).float()


def _bilinear_weights(size: int) -> Tensor:
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 == 1 else factor - 0.5
    # On the CPU also under torch.device("meta"): the kernel is no parameter that a file would give.
    positions = torch.arange(size, dtype=torch.float64, device="cpu")
    return 1 - (positions - centre).abs() / factor


class BilinearUpsample(nn.Module):
    """A fixed transposed convolution that enlarges every channel by itself.

    The kernel is a constant: no parameter, not trained, not in the state dict.
    """

    kernel: Tensor
    weights: Tensor
    """Of one axis, (2 * factor,), with a zero at the end where the kernel is odd."""

    def __init__(self, channels: int, geometry: Layer) -> None:
        super().__init__()
        self.geometry = geometry
        kernel = bilinear_kernel(geometry.kernel).expand(channels, 1, -1, -1)
        self.register_buffer("kernel", kernel.clone(), persistent=False)
        weights = _bilinear_weights(geometry.kernel).float()
        weights = F.pad(weights, (0, 2 * geometry.stride - geometry.kernel))
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, score_NKhw: Tensor) -> Tensor:
        """(N, K, h, w) -> (N, K, (h - 1) * factor + kernel, ...), in the input's precision."""
        # Grouped transposed convolution is up to twenty times faster on channels-last input.
        score_NKhw = score_NKhw.contiguous(memory_format=torch.channels_last)
        with torch.autocast(score_NKhw.device.type, enabled=False):
            return F.conv_transpose2d(
                score_NKhw,
                self.kernel.to(score_NKhw.dtype),
                stride=self.geometry.stride,
                groups=score_NKhw.shape[1],
            )


class LearnedUpsample(nn.ConvTranspose2d):
    """A trained transposed convolution from all channels to all, bilinear and diagonal at first."""

    def __init__(self, channels: int, geometry: Layer) -> None:
        self.geometry = geometry
        super().__init__(channels, channels, geometry.kernel, geometry.stride, bias=False)

    def reset_parameters(self) -> None:
        """Set the bilinear kernel on the channel diagonal, zero elsewhere."""
        with torch.no_grad():
            self.weight.copy_(dense_bilinear(self.in_channels, self.geometry.kernel))

    def forward(self, score_NKhw: Tensor, output_size: list[int] | None = None) -> Tensor:
        """As `BilinearUpsample`, in the precision of the parameters."""
        with torch.autocast(score_NKhw.device.type, enabled=False):
            return super().forward(score_NKhw.to(self.weight.dtype), output_size)


def dense_bilinear(channels: int, size: int) -> Tensor:
    """The (channels, channels, size, size) kernel of the reference's fixed deconvolutions."""
    weight = torch.zeros(channels, channels, size, size)
    weight[range(channels), range(channels)] = bilinear_kernel(size)
    return weight


def crop(map_NChw: Tensor, offset: int, height: int, width: int) -> Tensor:
    """The (height, width) window at (offset, offset): a view, from the top left, not centred."""
    assert offset + height <= map_NChw.shape[2], (offset, height, map_NChw.shape)
    assert offset + width <= map_NChw.shape[3], (offset, width, map_NChw.shape)
    return map_NChw[:, :, offset : offset + height, offset : offset + width]
