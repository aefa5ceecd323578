"""The ring of padding around an image is the same for all images, and not computed for each.

The first convolution pads by 100, so half of all arithmetic at 500 x 500 is spent on what depends
on the weights alone. The first maps of a small image of zeros have every value that can occur
there: some near each edge, and one in the middle, which larger maps repeat. Step by step, only the
window that the image can have changed is computed (see `ring_plan`), with its surroundings cut from
those maps. Where it has grown to the edge, the map is put together and the trunk goes on as usual.

Results are those of whole maps but for the rounding of kernels chosen by shape. So are gradients.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fcn_model.backbones.steps import Convolve, Step
from fcn_model.backbones.trunk import Trunk
from fcn_model.extents import Extents
from fcn_model.geometry import Interval, output_size
from fcn_model.layers import Variant
from fcn_model.precision import has_kernels
from fcn_model.ring_plan import Box, Part, middle, padded, parts, smallest

KEPT_BYTES = 128 << 20
"""Of maps of zeros; those of one phase take 18 MB for VGG16 in fp32."""

BUSY_PIXELS = 3_000_000
"""Of a batch. Below it a GPU waits for its next kernel, and with the ring there are more: 8 images
of 500 x 500 took an H200 1.16 of the time without it, 16 of them 0.88, before there was this rule.
"""

BUSY_PRODUCTS = 60_000_000
"""Of an image's padded pixels with the squared channels of the first layer, where zeros are not
kept, as in training: below it, what sizes that change from step to step cost is more than what is
saved. With two images of unequal 112 to 176 pixels a step on two cores took 1.8 of the time without
the ring at an eighth of VGG16's width, 1.2 at a quarter, 0.8 to 1.0 at half (timed by hand).
"""

Layers = Mapping[str, nn.Module]


@dataclass(frozen=True)
class Zeros:
    """The maps of an image of zeros after each of the first steps, and their `middle`."""

    maps: Sequence[Tensor]
    middles: Sequence[int]

    def cut(self, index: int, size: tuple[int, int], box: Box) -> Tensor:
        """Rows and columns of the map after step ``index``, as if it had ``size``."""
        map_1hwC = self.maps[index].permute(0, 2, 3, 1)  # as it lies in memory
        for axis, length, (begin, end) in zip((1, 2), size, box, strict=True):
            repeated = length - map_1hwC.shape[axis]
            positions = torch.arange(begin, end)
            positions -= (positions - self.middles[index]).clamp(0, repeated)
            map_1hwC = map_1hwC.index_select(axis, positions.to(map_1hwC.device))
        return map_1hwC.permute(0, 3, 1, 2)


class KeptZeros:
    """The `Zeros` of one network whose weights stay as they are, the latest used."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], Zeros] = OrderedDict()
        self.bytes = 0
        self._lock = threading.Lock()

    def of(
        self, trunk: Trunk, layers: Layers, steps: int, size: tuple[int, int], like: Tensor
    ) -> Zeros:
        """As `zeros`."""
        key = id(trunk), steps, size, like.dtype, _autocast(like.device.type)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = zeros(trunk, layers, steps, size, like)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self.bytes += _bytes(made)
            while self.bytes > KEPT_BYTES:
                _, old = self._kept.popitem(last=False)
                self.bytes -= _bytes(old)
        return made


def _autocast(device: str) -> torch.dtype | None:
    """The format that the same layers give maps of under autocast, if that is on."""
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def _bytes(kept: Zeros) -> int:
    return sum(each.numel() * each.element_size() for each in kept.maps)


def zeros(trunk: Trunk, layers: Layers, steps: int, size: tuple[int, int], like: Tensor) -> Zeros:
    """The maps of an image of zeros of ``size``, (height, width) with padding, like ``like``."""
    x = like.new_zeros((1, like.shape[1], *size))
    maps: list[Tensor] = []
    for step in trunk.steps[:steps]:
        x = _inside(step, layers, x) if not maps else step.run(layers, x, Extents(None))
        maps.append(x)
    return Zeros(maps, [middle(trunk, count + 1) for count in range(steps)])


def features(
    trunk: Trunk,
    layers: Layers,
    images_NCHW: Tensor,
    extents: Extents,
    kept: KeptZeros | None = None,
) -> dict[str, Tensor]:
    """What `Trunk.run` gives, with the ring of padding taken from maps of zeros.

    ``kept`` are those of this network; without it they are made anew, as they are where gradients
    are wanted, since those of the surroundings flow through them.
    """
    if torch.is_grad_enabled():
        kept = None
    if not _pays(trunk, images_NCHW, kept):
        return trunk.run(layers, images_NCHW, extents)
    canvas = images_NCHW.shape[2], images_NCHW.shape[3]
    sizes = extents.sizes or (canvas,) * len(images_NCHW)
    plans = {size: parts(trunk, size) for size in dict.fromkeys(sizes)}
    steps = min(len(plan) for plan in plans.values())
    if steps == 0:
        return trunk.run(layers, images_NCHW, extents)
    made: dict[str, list[Tensor]] = {}
    order: list[int] = []
    for size, plan in plans.items():
        chosen = [index for index, each in enumerate(sizes) if each == size]
        order += chosen
        zero_size = smallest(trunk, steps, padded(trunk, size))
        make = zeros if kept is None else kept.of
        ring = Ring(plan[:steps], make(trunk, layers, steps, zero_size, images_NCHW))
        images = images_NCHW if len(plans) == 1 else images_NCHW[chosen]
        images = images[:, :, : size[0], : size[1]]
        for name, map_NChw in ring.run(trunk, layers, images).items():
            made.setdefault(name, []).append(map_NChw)
    path = [step.geometry for step in trunk.steps[:steps]]
    joined = {
        name: _joined(maps, order, [output_size(trunk.path(name), length) for length in canvas])
        for name, maps in made.items()
    }
    last = trunk.steps[steps - 1].name
    rest = trunk.run(layers, joined[last], extents.through(path), done=steps)
    return {name: joined[name] for name in trunk.wanted & joined.keys()} | rest


def _pays(trunk: Trunk, images_NCHW: Tensor, kept: KeptZeros | None) -> bool:
    """Whether arithmetic is what takes the time."""
    if images_NCHW.is_cuda:
        return is_busy(images_NCHW)
    if kept is not None:
        return True
    height, width = padded(trunk, (images_NCHW.shape[2], images_NCHW.shape[3]))
    return height * width * trunk.steps[0].channels ** 2 >= BUSY_PRODUCTS


def is_busy(images_NCHW: Tensor) -> bool:
    """Whether a GPU takes longer for a batch than it takes to launch its kernels."""
    count, _, height, width = images_NCHW.shape
    return count * height * width >= BUSY_PIXELS


def _joined(maps: Sequence[Tensor], order: Sequence[int], size: Sequence[int]) -> Tensor:
    """Maps of groups of images, zero-filled to one ``size``, in the order of the batch."""
    height, width = size
    fill = [(0, width - each.shape[3], 0, height - each.shape[2]) for each in maps]
    filled = [F.pad(m, f) if any(f) else m for m, f in zip(maps, fill, strict=True)]
    if len(maps) == 1:
        return filled[0]
    place = torch.tensor(order, device=maps[0].device).argsort()
    return torch.cat(filled).index_select(0, place)


@dataclass(frozen=True)
class Ring:
    """The first steps for images of one size."""

    plan: Sequence[Part]
    zeros: Zeros

    def run(self, trunk: Trunk, layers: Layers, images_NCHW: Tensor) -> dict[str, Tensor]:
        """The whole maps that the head uses, and that of the last step, by name."""
        made, scratch = {}, Scratch()
        x = images_NCHW
        for index, (step, part) in enumerate(zip(trunk.steps, self.plan, strict=False)):
            if index:
                x = self._surrounded(x, index - 1, part.needed, scratch)
            else:
                x = _with_zeros(x, trunk.steps[0].geometry.pad, part.needed)
            x = _inside(step, layers, x)
            if step.name in trunk.wanted or index == len(self.plan) - 1:
                height, width = part.size
                made[step.name] = self._surrounded(x, index, ((0, height), (0, width)), Scratch())
        return made

    def _surrounded(self, x_NChw: Tensor, index: int, box: Box, scratch: Scratch) -> Tensor:
        """Rows and columns of the map after step ``index``, of which ``x`` is the part made.

        They may lie in ``scratch``.
        """
        part = self.plan[index]
        rows, columns = box
        (top, bottom), (left, right) = part.made

        def cut(rows: Interval, columns: Interval) -> Tensor:
            zeros_1Chw = self.zeros.cut(index, part.size, (rows, columns))
            return zeros_1Chw.expand(len(x_NChw), -1, -1, -1)

        if box == part.made:
            return x_NChw
        if has_kernels(x_NChw.device) and not torch.is_grad_enabled():
            from fcn_model.triton_kernels import surrounded  # noqa: PLC0415

            map_1Chw, start = self.zeros.maps[index], self.zeros.middles[index]
            return surrounded(x_NChw, map_1Chw, start, part.size, part.made, box)
        above, below = cut((rows[0], top), columns), cut((bottom, rows[1]), columns)
        before = cut((top, bottom), (columns[0], left))
        behind = cut((top, bottom), (right, columns[1]))
        if torch.is_grad_enabled():
            return torch.cat([above, torch.cat([before, x_NChw, behind], 3), below], 2)
        # The same with one copy instead of two.
        shape = *x_NChw.shape[:2], rows[1] - rows[0], columns[1] - columns[0]
        whole = scratch.map(x_NChw, shape)
        middle = whole[:, :, top - rows[0] : bottom - rows[0]]
        whole[:, :, : top - rows[0]], whole[:, :, bottom - rows[0] :] = above, below
        middle[..., : left - columns[0]], middle[..., right - columns[0] :] = before, behind
        middle[..., left - columns[0] : right - columns[0]] = x_NChw
        return whole


class Scratch:
    """Memory for one map at a time: what a process asks for anew is zeroed first, page by page."""

    def __init__(self) -> None:
        self._held: Tensor | None = None

    def map(self, like: Tensor, shape: Sequence[int]) -> Tensor:
        """An uninitialized map (N, C, h, w), channels last in memory; the one before it is gone.

        Unless that one is ``like`` itself, as after a layer that changes nothing.
        """
        count, channels, height, width = shape
        numel = math.prod(shape)
        held = self._held
        if held is None or len(held) < numel or _memory(held) == _memory(like):
            self._held = held = like.new_empty(numel)
        return held[:numel].view(count, height, width, channels).permute(0, 3, 1, 2)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _with_zeros(images_NCHW: Tensor, pad: int, box: Box) -> Tensor:
    """Rows and columns of the images with ``pad`` zeros all around."""
    (top, bottom), (left, right) = box
    height, width = images_NCHW.shape[2:]
    around = (pad - left, right - pad - width, pad - top, bottom - pad - height)
    return F.pad(images_NCHW, around)


def _inside(step: Step, layers: Layers, x_NChw: Tensor) -> Tensor:
    """Only those outputs of a step of which no tap lies beyond its input."""
    if isinstance(step, Convolve):
        return step.run({step.name: Variant(layers[step.name], padding=0)}, x_NChw, Extents(None))
    reach = step.geometry.pad
    y_NChw = step.run(layers, x_NChw, Extents(None))
    return y_NChw[:, :, reach : y_NChw.shape[2] - reach, reach : y_NChw.shape[3] - reach]
