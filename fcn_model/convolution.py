"""How a convolution is computed: by torch, or in another way where that pays.

fc6 has 411 MB of weights, which torch's convolution on a CPU brings into another order at every
call. Where outputs are few, it is a product of matrices that reads the weights once. 3x3
convolutions of many channels in float32 go by `winograd`. Both take half the time.
On a GPU in half precision bias and ReLU belong to the convolution, fc6 is a product as well, and
that of the image is a kernel of ours (`python -m benchmarks.gpu`).
"""

from __future__ import annotations

import threading

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fcn_model.precision import has_kernels, has_onednn, is_nvidia
from fcn_model.winograd import Winograd, convolved, transformed

MANY_CHANNELS = 128 * 128
"""Of input times output, from which on the transforms cost less than what they save. 128 to 128
took 0.85 of the time of torch's own with AVX-512 and 0.6 with AVX2, 64 to 128 1.0 and 0.7 of it (by
hand)."""

FEW_POSITIONS = 1000
"""Of an input: of fewer, weights that are not kept are not worth their transform."""

HALVES = (torch.bfloat16, torch.float16)
FEW_CHANNELS = 4
"""Of an image; so few leave cuDNN's kernels idle."""

MANY_TAPS = 8192
"""Of one output, channels included, as fully connected layers have."""


class KeptWeights:
    """Weights as `winograd.convolved` takes them, of layers whose weights stay as they are.

    Four times their size; 234 MB for VGG16. That they stay is the promise of whoever passes this:
    torch does not count what its fused optimizers change, or an edit of ``weight.data``.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}
        self._lock = threading.Lock()

    def of(self, weight_OCkk: Tensor) -> Tensor:
        """`transformed` weights."""
        with self._lock:
            if id(weight_OCkk) not in self._kept:  # the tensor is held so that its id is its own
                self._kept[id(weight_OCkk)] = weight_OCkk, transformed(weight_OCkk.detach())
            return self._kept[id(weight_OCkk)][1]


def convolve(
    layer: nn.Conv2d,
    input_NChw: Tensor,
    *,
    padding: int | None = None,
    kept: KeptWeights | None = None,
) -> Tensor:
    """What the layer makes of its input, or would make with another padding.

    ``kept`` is not looked at where gradients are wanted.
    """
    own = layer.padding
    assert isinstance(own, tuple)
    pad = own[0] if padding is None else padding
    weight, bias = layer.weight, layer.bias
    if _is_product(layer, input_NChw, pad):
        return _product(layer, input_NChw)
    learns = _learns(layer, input_NChw)
    once = learns or kept is None
    if not _is_wide(layer, input_NChw, pad) or (once and _is_small(input_NChw)):
        return F.conv2d(input_NChw, weight, bias, layer.stride, pad, layer.dilation, layer.groups)
    if learns:
        return Winograd.apply(input_NChw, weight, bias, pad)
    transforms = transformed(weight.detach()) if kept is None else kept.of(weight)
    return convolved(input_NChw, transforms, bias, pad)


def rectified(
    layer: nn.Conv2d,
    input_NChw: Tensor,
    *,
    padding: int | None = None,
    kept: KeptWeights | None = None,
) -> Tensor:
    """`convolve` and the ReLU after it, without gradients: on a GPU one kernel in half precision.

    There bias and ReLU by themselves would each read and write the whole map once more.
    """
    halves = input_NChw.dtype == layer.weight.dtype in HALVES
    if halves and is_nvidia(input_NChw.device):
        return _fused(layer, input_NChw, layer.padding[0] if padding is None else padding)  # type: ignore[arg-type]
    return F.relu_(convolve(layer, input_NChw, padding=padding, kept=kept))


def _fused(layer: nn.Conv2d, input_NChw: Tensor, pad: int) -> Tensor:
    assert layer.bias is not None
    weight, bias = layer.weight, layer.bias
    if _is_dense(layer) and layer.in_channels <= FEW_CHANNELS and has_kernels(input_NChw.device):
        from fcn_model import triton_kernels  # noqa: PLC0415

        return triton_kernels.rectified(
            input_NChw, weight, bias, stride=layer.stride[0], padding=pad
        )
    if _is_plain(layer) and pad == 0 and weight[0].numel() >= MANY_TAPS:
        # cuDNN's convolution takes four times as long, on an H200 and with 7 x 7 taps of 512.
        patches_NChwkk = _patches(layer, input_NChw)
        count, _, height, width = patches_NChwkk.shape[:4]
        matrix = weight.permute(0, 2, 3, 1).reshape(layer.out_channels, -1)
        taps = patches_NChwkk.permute(0, 2, 3, 4, 5, 1).reshape(-1, matrix.shape[1])
        output = torch._addmm_activation(bias, taps, matrix.t())
        return output.view(count, height, width, -1).permute(0, 3, 1, 2)
    return torch.cudnn_convolution_relu(
        input_NChw, weight, bias, layer.stride, (pad, pad), layer.dilation, layer.groups
    )


def _learns(layer: nn.Conv2d, input_NChw: Tensor) -> bool:
    """Whether gradients are wanted."""
    if not torch.is_grad_enabled():
        return False
    return input_NChw.requires_grad or any(each.requires_grad for each in layer.parameters())


def _is_dense(layer: nn.Conv2d) -> bool:
    return (layer.dilation, layer.groups) == ((1, 1), 1)


def _is_plain(layer: nn.Conv2d) -> bool:
    return _is_dense(layer) and layer.stride == (1, 1)


def _is_product(layer: nn.Conv2d, input_NChw: Tensor, pad: int) -> bool:
    """Whether the weights are many more than all their taps."""
    count, _, height, width = input_NChw.shape
    rows, columns = layer.kernel_size
    outputs = count * (height - rows + 1) * (width - columns + 1)
    few = pad == 0 and 2 * outputs <= layer.out_channels
    return few and _is_plain(layer) and input_NChw.device.type == "cpu"


def _is_wide(layer: nn.Conv2d, input_NChw: Tensor, pad: int) -> bool:
    """Whether Winograd's way is faster."""
    return (
        layer.kernel_size == (3, 3)
        and pad <= 2
        and layer.in_channels * layer.out_channels >= MANY_CHANNELS
        and _is_plain(layer)
        and _is_single(layer, input_NChw)
    )


def _is_single(layer: nn.Conv2d, input_NChw: Tensor) -> bool:
    """Whether this is arithmetic in float32 that oneDNN does."""
    return (
        input_NChw.dtype == layer.weight.dtype == torch.float32
        and input_NChw.device.type == "cpu"
        and has_onednn()
        and not torch.is_autocast_enabled("cpu")
    )


def _is_small(input_NChw: Tensor) -> bool:
    """Whether to transform weights for it alone takes longer than it saves."""
    return input_NChw.numel() < FEW_POSITIONS * input_NChw.shape[1]


def _product(layer: nn.Conv2d, input_NChw: Tensor) -> Tensor:
    """The convolution as weights times the patches under them, in the weights' memory order."""
    assert layer.bias is not None
    weight, patches_NChwkk = layer.weight, _patches(layer, input_NChw)
    count, _, height, width = patches_NChwkk.shape[:4]
    if weight.is_contiguous(memory_format=torch.channels_last):
        patches, weight = patches_NChwkk.permute(0, 2, 3, 4, 5, 1), weight.permute(0, 2, 3, 1)
    else:
        patches = patches_NChwkk.permute(0, 2, 3, 1, 4, 5)
    matrix = weight.reshape(layer.out_channels, -1)
    taps = patches.reshape(-1).view(-1, matrix.shape[1])  # oneDNN wants plain strides of 1s too
    if _is_single(layer, input_NChw) and not _learns(layer, input_NChw):
        # Its second factor is what it brings into another order, so that is the smaller one.
        output = torch.ops.mkldnn._linear_pointwise(matrix, taps, None, "none", (), "")
        output += layer.bias[:, None]
    else:
        output = torch.addmm(layer.bias[:, None], matrix, taps.t())
    output_NChw = output.view(layer.out_channels, count, height, width).transpose(0, 1)
    return output_NChw.contiguous(memory_format=torch.channels_last)


def _patches(layer: nn.Conv2d, input_NChw: Tensor) -> Tensor:
    """The inputs under each output, as a view (N, C, h, w, k, k)."""
    rows, columns = layer.kernel_size
    return input_NChw.unfold(2, rows, 1).unfold(3, columns, 1)
