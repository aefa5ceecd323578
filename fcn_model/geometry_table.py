"""The geometry of a network as a table: each layer, what it makes of an image, what it sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from fcn_model.backbones import classifier_trunk
from fcn_model.backbones.steps import (
    SAME,
    AveragePool,
    Convolve,
    Drop,
    Inception,
    MaxPool,
    ResponseNorm,
    Step,
    make_layers,
)
from fcn_model.backbones.trunk import Trunk
from fcn_model.errors import SpecError
from fcn_model.geometry import (
    Coordinates,
    Layer,
    coordinates,
    output_size,
    receptive_field,
    trimmed,
)
from fcn_model.heads import SkipHead
from fcn_model.network import FCN
from fcn_model.spec import NetworkSpec

_KINDS: dict[type[Step], str] = {
    Convolve: "convolution",
    MaxPool: "max pool",
    AveragePool: "average pool",
    ResponseNorm: "response norm",
    Drop: "dropout",
    Inception: "inception",
}

_HEADER = (
    *("layer", "kind", "channels", "kernel", "stride", "pad", "output"),
    *("field", "step", "offset"),
)
_LEFT = (True, True, *[False] * 8)
_LEGEND = """\
field: pixels on an axis that one output sees; step: pixels from one output to the next;
offset: where the centre of output 0 lies in the image; an inception module is its widest branch."""

_Size = tuple[int, int]
_Path = Sequence[Layer]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One layer, and its map for the image that the table is for.

    ``layer`` is None for what leaves every position where it is. ``size`` is (height, width).
    ``field`` is how many pixels on an axis one output sees, None after upsampling, where outputs
    differ in it. Output x lies at ``coordinates.scale * x + coordinates.offset`` in the image.
    """

    name: str
    kind: str
    layer: Layer | None
    channels: int
    size: tuple[int, int]
    field: int | None
    coordinates: Coordinates


@dataclass(frozen=True, kw_only=True)
class GeometryTable:
    """The rows, the crops by the name of what is cropped, and the number of parameters."""

    title: str
    rows: tuple[Row, ...]
    crops: dict[str, int]
    parameters: int

    def to_text(self) -> str:
        """The table for a terminal, height before width."""
        cells = [_HEADER, *(_cells(row) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = ["  ".join(map(_justified, line, widths, _LEFT)) for line in cells]
        crops = ", ".join(f"{name} from {offset}" for name, offset in self.crops.items())
        ends = [f"crops: {crops}"] if crops else []
        ends.append(f"parameters: {self.parameters:,}")
        return "\n".join([self.title, "", *lines, "", _LEGEND, "", *ends])


def network_table(spec: NetworkSpec, size: tuple[int, int]) -> GeometryTable:
    """The table of a network for an image of ``size``, (height, width) in pixels.

    Of several streams the first is shown, whose geometry all have; every task's head is. Raises
    SpecError for a size below 1.
    """
    title = _title(spec.name, size)
    with torch.device("meta"):
        network = FCN(spec)
    rows = list(_trunk_rows(network.backbone, size))
    crops: dict[str, int] = {}
    for head in network.heads:
        rows += _head_rows(head, size)
        for fusion in head.fusions:
            crops[f"score_{fusion.feature}{head.suffix}"] = fusion.offset
            if fusion.trim:
                crops[fusion.upsample] = fusion.trim
        crops[head.final_upsample] = head.final_offset
    return GeometryTable(
        title=title,
        rows=tuple(rows),
        crops=crops,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )


def classifier_table(spec: NetworkSpec, size: tuple[int, int]) -> GeometryTable:
    """The table of the backbone as the ImageNet classifier has it, less the last dense layer.

    It has its own padding, and GoogLeNet its average pool. Raises SpecError for an image that is
    too small for one output.
    """
    trunk = classifier_trunk(spec)
    title = _title(f"the classifier of {spec.backbone}, less {trunk.classifier}", size)
    with torch.device("meta"):
        layers = make_layers(trunk.steps)
    return GeometryTable(
        title=title,
        rows=tuple(_trunk_rows(trunk, size)),
        crops={},
        parameters=sum(p.numel() for layer in layers.values() for p in layer.parameters()),
    )


def _title(name: str, size: _Size) -> str:
    if min(size) < 1:
        raise SpecError(f"an image is at least 1 x 1 pixels, got {size[0]} x {size[1]}")
    return f"{name}, for an image of {size[0]} x {size[1]} pixels (height x width)"


def _trunk_rows(trunk: Trunk, size: _Size) -> Iterator[Row]:
    for step in trunk.steps:
        path, geometry = trunk.path(step.name), step.geometry
        kind = _KINDS[type(step)] + (", ceil" if geometry.ceil else "")
        layer = geometry if isinstance(step, Convolve) or geometry != SAME else None
        yield _row(step.name, kind, layer, path, step.channels, _sizes(path, size))


def _head_rows(head: SkipHead, size: _Size) -> Iterator[Row]:
    """score_fr; of each skip the scores enlarged, its own, and their sum; the scores at last."""
    count, suffix, path = head.num_classes, head.suffix, head.score_path
    maps = list(zip(head.sizes(size[0]), head.sizes(size[1]), strict=True))
    point = Layer(1)
    yield _row(f"score_fr{suffix}", "convolution", point, path, count, maps[0])
    for fusion, before, after in zip(head.fusions, maps, maps[1:], strict=False):
        up, skip, feature = fusion.geometry, fusion.skip_path, fusion.feature
        path = (*path, up)
        yield _row(fusion.upsample, "upsampling", up, path, count, _sizes([up], before))
        name = f"score_{feature}{suffix}"
        yield _row(name, "convolution", point, skip, count, _sizes(skip, size))
        path = (*path, trimmed(fusion.trim))
        yield _row(f"fuse_{feature}{suffix}", "sum", None, path, count, after)
    up = head.final_geometry
    path = (*path, up)
    yield _row(head.final_upsample, "upsampling", up, path, count, maps[-1])
    path = (*path, trimmed(head.final_offset))
    yield _row(f"score{suffix}", "crop", None, path, count, size)


def _row(name: str, kind: str, layer: Layer | None, path: _Path, channels: int, size: _Size) -> Row:
    enlarged = any(one.transposed for one in path)
    return Row(
        name=name,
        kind=kind,
        layer=layer,
        channels=channels,
        size=size,
        field=None if enlarged else receptive_field(path),
        coordinates=coordinates(path),
    )


def _sizes(path: _Path, size: _Size) -> _Size:
    try:
        return output_size(path, size[0]), output_size(path, size[1])
    except SpecError as error:
        raise SpecError(
            f"an image of {size[0]} x {size[1]} pixels is too small for this network: {error}"
        ) from error


def _justified(cell: str, width: int, left: bool) -> str:
    return cell.ljust(width) if left else cell.rjust(width)


def _cells(row: Row) -> tuple[str, ...]:
    layer, here = row.layer, row.coordinates
    shape = ("", "", "")
    if layer is not None:
        step = f"1/{layer.stride}" if layer.transposed else f"{layer.stride}"
        shape = (f"{layer.kernel}", step, f"{layer.pad}")
    height, width = row.size
    return (
        row.name,
        row.kind,
        f"{row.channels}",
        *shape,
        f"{height} x {width}",
        "" if row.field is None else f"{row.field}",
        f"{here.scale}",
        f"{float(here.offset):g}",
    )
