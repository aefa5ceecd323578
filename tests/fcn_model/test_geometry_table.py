from __future__ import annotations

from typing import get_args

import pytest
import torch

from fcn_model import NetworkSpec, ring
from fcn_model.errors import SpecError
from fcn_model.geometry import Coordinates
from fcn_model.geometry_table import GeometryTable, classifier_table, network_table
from fcn_model.spec import BackboneName, Head
from tests.support.networks import random_network

HEADS: tuple[Head, ...] = get_args(Head)
BACKBONES: tuple[BackboneName, ...] = get_args(BackboneName)


def fields(table: GeometryTable) -> dict[str, int | None]:
    return {row.name: row.field for row in table.rows}


def of(backbone: BackboneName, head: Head) -> NetworkSpec:
    return NetworkSpec(num_classes=21, backbone=backbone, head=head)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", HEADS)
def test_the_sizes_are_those_of_the_maps_that_the_network_makes(
    backbone: BackboneName, head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = random_network(head, backbone=backbone, width=1 / 64)
    monkeypatch.setattr(ring, "parts", lambda _trunk, _size: [])  # whole maps
    made = {}
    for name, layer in network.named_children():
        layer.register_forward_hook(
            lambda _layer, _given, made_NChw, name=name: made.update({name: made_NChw.shape[1:]})
        )
    with torch.no_grad():
        network(torch.zeros(1, 3, 37, 50))
    rows = network_table(network.spec, (37, 50)).rows
    compared = {row.name: (row.channels, *row.size) for row in rows if row.name in made}
    assert compared == {name: tuple(made[name]) for name in compared}
    inside_modules = {name for name in made if name.startswith("inception")}
    assert set(compared) == set(made) - inside_modules
    assert rows[-1].size == (37, 50)
    assert rows[-1].coordinates == Coordinates()


@pytest.mark.parametrize(
    ("backbone", "head", "crops", "parameters"),
    [
        ("vgg16", "fcn32s", [19], 134_346_581),
        ("vgg16", "fcn16s", [5, 27], 134_357_354),
        ("vgg16", "fcn8s", [5, 9, 31], 134_362_751),
        ("caffenet", "fcn32s", [18], 56_954_261),
        ("googlenet", "fcn32s", [98], 5_995_077),
    ],
)
def test_crops_and_parameters_are_the_published_ones(
    backbone: BackboneName, head: Head, crops: list[int], parameters: int
) -> None:
    table = network_table(of(backbone, head), (500, 375))
    assert list(table.crops.values()) == crops
    assert table.parameters == parameters


def test_receptive_fields_are_those_of_the_literature() -> None:
    vgg = fields(network_table(of("vgg16", "fcn8s"), (500, 500)))
    assert [vgg[f"pool{block}"] for block in range(1, 6)] == [6, 16, 44, 100, 212]
    assert vgg["score_fr"] == 404
    assert fields(network_table(of("caffenet", "fcn32s"), (500, 500)))["score_fr"] == 355
    google = classifier_table(of("googlenet", "fcn32s"), (224, 224))
    assert (fields(google)["inception_5b/output"], fields(google)["pool5"]) == (715, 907)
    assert google.parameters == 5_973_552
    assert google.rows[-1].size == (1, 1)


def test_the_offset_of_a_sum_is_that_of_the_cropped_skip() -> None:
    for backbone in BACKBONES:
        table = network_table(of(backbone, "fcn8s"), (60, 90))
        rows = {row.name: row for row in table.rows}
        for name, fused in rows.items():
            if name.startswith("fuse_"):
                skip = rows[name.replace("fuse", "score")]
                cropped = table.crops[skip.name] * skip.coordinates.scale
                assert fused.coordinates.scale == skip.coordinates.scale
                assert fused.coordinates.offset == skip.coordinates.offset + cropped


def test_the_text_has_a_line_for_every_layer() -> None:
    table = network_table(of("vgg16", "fcn16s"), (500, 375))
    lines = [" ".join(line.split()) for line in table.to_text().splitlines()]
    assert "FCN-16s VGG16" in lines[0]
    assert "conv1_1 convolution 64 3 1 100 698 x 573 3 1 -99" in lines
    assert "pool3 max pool, ceil 256 2 2 0 88 x 72 44 8 -95.5" in lines
    assert "drop7 dropout 4096 16 x 12 404 32 12.5" in lines
    assert "upscore16 upsampling 21 32 1/16 0 560 x 432 1 -27" in lines
    assert lines[-2:] == ["crops: score_pool4 from 5, upscore16 from 27", "parameters: 134,357,354"]


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(SpecError, match="at least 1 x 1 pixels, got 0 x 5"):
        network_table(of("vgg16", "fcn8s"), (0, 5))
