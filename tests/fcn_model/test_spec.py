from __future__ import annotations

import json
from typing import Any

import pytest

from fcn_model import ClassList, NetworkSpec
from fcn_model.classes import voc_palette
from fcn_model.errors import FCNError, SpecError


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "FCN-8s VGG16"),
        ({"head": "fcn32s"}, "FCN-32s VGG16"),
        ({"skip_scales": (0.01, 0.0001)}, "FCN-8s at-once VGG16"),
        ({"skip_scales": (0.5, 1.0)}, "FCN-8s (skips x 0.5, 1) VGG16"),
        ({"fc_width": 1024}, "FCN-8s (VGG16 trunk, fc 1024)"),
        (
            {"width": 0.125, "fc_width": 128, "head": "fcn16s"},
            "FCN-16s narrow (VGG16 layout, width 0.125, fc 128)",
        ),
        ({"width": 2}, "FCN-8s wide (VGG16 layout, width 2, fc 4096)"),
    ],
)
def test_only_full_width_is_called_vgg16(fields: dict[str, Any], name: str) -> None:
    spec = NetworkSpec(num_classes=21, **fields)
    assert spec.name == name
    assert NetworkSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_classes": 0}, "num_classes must be 1 to 256, got 0"),
        ({"num_classes": 257}, "num_classes must be 1 to 256, got 257"),
        ({"head": "fcn4s"}, "head must be one of .*'fcn8s'.*got 'fcn4s'"),
        ({"backbone": "vgg19"}, "backbone must be one of .*'vgg16', 'caffenet'.*got 'vgg19'"),
        ({"width": 0.001}, "width must be 1/64 to 8, got 0.001"),
        ({"fc_width": 0}, "fc_width must be 1 to 65536, got 0"),
        ({"dropout": 1.0}, "dropout must be 0 up to, not including, 1, got 1.0"),
        ({"skip_scales": [1.0, float("inf")]}, "skip_scales must be two positive finite factors"),
        ({"skip_scales": [float("nan"), 1.0]}, "skip_scales must be two positive finite factors"),
        ({"skip_scales": [0.0, 1.0]}, "skip_scales must be two positive finite factors"),
        ({"head": "fcn32s", "skip_scales": [0.5, 1]}, "1 for a skip that fcn32s does not have"),
        ({"skip_scales": [1.0]}, "wrong type"),
        ({"num_classes": "many"}, "num_classes must be 1 to 256, got 'many'"),
        ({"num_classes": 5.5}, "num_classes must be 1 to 256, got 5.5"),
        ({"fc_width": 16.0}, "fc_width must be 1 to 65536, got 16.0"),
        ({"width": "1"}, "width must be a number, got '1'"),
        ({"streams": [["", 3.5]]}, "streams must be of 1 to 64 channels each"),
        ({"streams": [["color", 3]]}, "one unnamed stream, or several named"),
        ({"more_tasks": [["sem", 3]]}, "distinct lower-case words other than 'sem'"),
        ({"more_tasks": [3]}, "wrong type"),
        ({"backbone": "googlenet", "fc_width": 8}, "left at 4096 for googlenet, which has no fc6"),
        ({"heads": "fcn8s"}, r"got unknown \['heads'\]"),
    ],
)
def test_a_network_that_cannot_be_is_refused_by_field_and_value(
    fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        NetworkSpec.from_dict({"num_classes": 21, **fields})


@pytest.mark.parametrize("value", [None, [], "fcn8s", {}])
def test_what_is_no_description_of_a_network_is_refused(value: object) -> None:
    with pytest.raises(SpecError, match="a network is a JSON object with"):
        NetworkSpec.from_dict(value)


def test_the_voc_palette_is_vocs() -> None:
    palette = voc_palette()
    assert palette[:4] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert palette[15] == (192, 128, 128)  # person
    assert palette[20] == (0, 64, 128)  # tv monitor
    assert palette[255] == (224, 224, 192)  # void border
    assert len(set(palette)) == 256


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"names": []}, "needs 1 to 256 names, got 0"),
        ({"names": ["sky", "sky"]}, r"repeated: \['sky'\]"),
        ({"names": ["sky", "road"], "void_id": 1}, "void id 1 is also class 'road'.*from 2 to 255"),
        ({"names": ["sky"], "void_id": 256}, "must lie in 0..255, got 256"),
        ({"names": ["sky"], "palette": [[0, 0, 0]] * 2}, "2 colours for 1 classes"),
        ({"names": ["sky"], "palette": [[0, 0, 300]]}, r"in 0..255, got \(0, 0, 300\)"),
        ({"names": ["sky"], "palette": [[0, 0]]}, "a class list is a JSON object"),
        ({}, "a class list is a JSON object"),
    ],
)
def test_a_class_list_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        ClassList.from_dict(fields)
    assert isinstance(caught.value, FCNError)
    assert isinstance(caught.value, ValueError)


def test_a_class_list_survives_json() -> None:
    classes = ClassList(names=("Sky", "Road"), palette=((1, 2, 3), (4, 5, 6)), void_id=11)
    assert ClassList.from_dict(json.loads(json.dumps(classes.to_dict()))) == classes
    assert ClassList.from_dict({"names": ["a", "b"]}).palette == voc_palette(2)
