"""What a run starts from: input, classes and normalization, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
import torch

from fcn_model import ClassList
from fcn_model.normalize import CAFFE, NYUD_COLOR, NYUD_DEPTH, NYUD_HHA, TORCHVISION_GOOGLENET
from pipelines import checkpoints, storage
from pipelines.errors import InputError
from pipelines.normalizations import NORMALIZATIONS, NormalizationName
from pipelines.sources import Source
from pipelines.train_settings import Network, Solver, TrainConfig
from pipelines.train_start import (
    check_same_classes,
    model_config,
    normalizations,
    prepare_start,
    wanted_planes,
)

CLASSES = ClassList(names=("a", "b"))
GEO = ClassList(names=("sky", "ground", "wall"))
SOURCE = Source("data", "nyud", CLASSES, (), tasks={"geo": GEO}, planes=("depth", "hha", "geo"))
NARROW = Network(head="fcn32s", width=1 / 32, fc_width=8, normalization="nyud")


def quiet(_: str) -> None:
    pass


@pytest.mark.parametrize(
    ("inputs", "image", "planes", "streams", "wanted"),
    [
        ("color", NYUD_COLOR, (), (("", 3),), ()),
        ("color-d", NYUD_COLOR, (("depth", NYUD_DEPTH),), (("", 4),), ("depth",)),
        ("hha", NYUD_HHA, (), (("", 3),), ("hha",)),
        (
            "color-hha",
            NYUD_COLOR,
            (("hha", NYUD_HHA),),
            (("color", 3), ("hha", 3)),
            ("hha",),
        ),
    ],
)
def test_each_kind_of_input_has_its_streams_planes_and_means(
    inputs, image, planes, streams, wanted
):
    config = TrainConfig(storage="s", name="n", network=replace(NARROW, inputs=inputs))
    model = model_config(config, SOURCE)
    assert (model.normalization, model.planes) == (image, planes)
    assert model.spec.streams == streams
    assert (model.spec.tasks, model.more_classes) == ((("sem", 2), ("geo", 3)), (GEO,))
    assert wanted_planes(model) == (*wanted, "geo")


def test_start_weights_bring_their_normalization(tmp_path):
    config = TrainConfig(
        storage="s", name="n", network=replace(NARROW, inputs="color-d", normalization="caffe")
    )
    run = storage.parse_uri(str(tmp_path))
    prepare_start(config, SOURCE, run, quiet)
    later = replace(config.network, init=storage.join(run, "init"), normalization="torchvision")
    assert normalizations(later) == (CAFFE, (("depth", NYUD_DEPTH),))
    googlenet = Network(backbone="googlenet_bn", head="fcn32s")
    assert normalizations(googlenet)[0] == TORCHVISION_GOOGLENET


def test_every_name_of_the_command_line_is_in_the_table_of_all():
    names = get_args(get_type_hints(Network)["normalization"])
    assert set(names) < set(NORMALIZATIONS) == set(get_args(NormalizationName))
    for name in names:
        assert normalizations(Network(normalization=name))[0] == NORMALIZATIONS[name]


def test_two_trained_nets_become_the_streams_of_one(tmp_path):
    runs: dict[str, str] = {}
    for inputs in ("color", "hha"):
        network = replace(NARROW, inputs=inputs)
        config = TrainConfig(storage="s", name="n", network=network, solver=Solver(seed=len(runs)))
        runs[inputs] = storage.join(storage.parse_uri(str(tmp_path)), inputs)
        prepare_start(config, SOURCE, runs[inputs], quiet)
    color, hha = f"{runs['color']}/init", f"{runs['hha']}/init"
    joined = replace(
        NARROW, inputs="color-hha", normalization="torchvision", init=color, init_hha=hha
    )
    both = storage.join(storage.parse_uri(str(tmp_path)), "both")
    lines: list[str] = []
    config = TrainConfig(storage="s", name="n", network=joined)
    model = prepare_start(config, SOURCE, both, lines.append)
    assert (model.normalization, model.planes) == (NYUD_COLOR, (("hha", NYUD_HHA),))
    assert f"from {color} and {hha}, fresh: none" in lines[0]
    fused, _ = checkpoints.load(storage.join(both, "init"))
    for stream, run in runs.items():
        alone, _ = checkpoints.load(storage.join(run, "init"))
        ours, theirs = (net.state_dict() for net in (fused, alone))
        assert torch.equal(ours[f"conv1_1{stream}.weight"], theirs["conv1_1.weight"])
    with pytest.raises(InputError, match="init_hha is for inputs color-hha"):
        replace(joined, inputs="color")


def test_a_run_goes_on_only_with_the_same_tasks_and_inputs(tmp_path):
    config = TrainConfig(storage="s", name="n", network=NARROW)
    run = storage.parse_uri(str(tmp_path))
    started = prepare_start(config, SOURCE, run, quiet)
    assert started.digest
    assert prepare_start(config, SOURCE, run, quiet) == started
    depth, hha = (
        replace(config, network=replace(NARROW, inputs=inputs)) for inputs in ("color-d", "hha")
    )
    other_tasks = replace(SOURCE, tasks={"geo": ClassList(names=("sky", "sea", "wall"))})
    for asked, source in ((depth, SOURCE), (hha, SOURCE), (config, other_tasks)):
        with pytest.raises(InputError, match="choose another --name"):
            prepare_start(asked, source, run, quiet)


def test_a_run_goes_on_only_from_its_own_start(tmp_path):
    root = storage.parse_uri(str(tmp_path))
    first, run = storage.join(root, "first"), storage.join(root, "run")
    config = TrainConfig(storage="s", name="n", network=NARROW)
    prepare_start(config, SOURCE, first, quiet)
    begun = replace(NARROW, init=f"{first}/init")
    started = prepare_start(replace(config, network=begun), SOURCE, run, quiet)
    for same in (begun, NARROW):
        assert prepare_start(replace(config, network=same), SOURCE, run, quiet) == started
    for other, said in (
        (replace(begun, init=f"{run}/best"), f"init {first}/init, not {run}/best"),
        (replace(begun, normalization="caffe"), "normalization nyud, not caffe"),
    ):
        with pytest.raises(InputError, match=f"was started with {said}; choose another --name"):
            prepare_start(replace(config, network=other), SOURCE, run, quiet)
    with pytest.raises(InputError, match="with init None"):  # it began with fresh layers
        prepare_start(replace(config, network=begun), SOURCE, first, quiet)
    (tmp_path / "first" / "start.json").unlink()  # as runs of earlier versions are
    prepare_start(replace(config, network=begun), SOURCE, first, quiet)


def test_a_start_that_is_cut_anywhere_or_incomplete_is_refused_by_name(tmp_path):
    config = TrainConfig(storage="s", name="n", network=NARROW)
    run = storage.parse_uri(str(tmp_path))
    prepare_start(config, SOURCE, run, quiet)
    file = tmp_path / "start.json"
    whole = file.read_bytes()
    damaged = [whole[:length] for length in range(len(whole))]
    for data in (*damaged, b"[]", b"7", b'{"init": null}', b"\xff" + whole):
        file.write_bytes(data)
        with pytest.raises(InputError, match=rf"^{run}/start.json is damaged .* another --name"):
            prepare_start(config, SOURCE, run, quiet)
    file.write_bytes(whole)
    prepare_start(config, SOURCE, run, quiet)


def test_training_and_validation_data_must_agree_on_every_label():
    check_same_classes(SOURCE, replace(SOURCE, uri="elsewhere"))
    for other in (
        replace(SOURCE, classes=ClassList(names=("a", "b"), void_id=7)),
        replace(SOURCE, tasks={}),
        replace(SOURCE, tasks={"geo": CLASSES}),
    ):
        with pytest.raises(InputError, match=r"disagree.*geo: \['sky', 'ground', 'wall'\]"):
            check_same_classes(SOURCE, other)
