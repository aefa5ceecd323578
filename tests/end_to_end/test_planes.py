"""Networks that see more than colour or predict several tasks, through segmentation and scores."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from fcn_model import Confusion, ModelConfig, Segmenter, checkpoint
from fcn_model.normalize import NYUD_COLOR, NYUD_DEPTH, NYUD_HHA, SIFT_FLOW
from fcn_model.spec import Stream, Task
from pipelines import images, storage
from pipelines.datasets import nyud, siftflow
from pipelines.errors import InputError
from pipelines.evaluation import evaluate
from pipelines.report import write_report
from pipelines.segmentation.night import segment
from pipelines.segmentation.settings import SegmentConfig
from pipelines.sources import open_source
from tests.support import published
from tests.support.networks import random_network
from tests.support.round_trip import opened, prepared

pytestmark = [pytest.mark.ray]


def _quiet(*_):
    pass


@torch.no_grad()
def _detailed(network):
    """The network with loud fine scores, so that small images get masks of several classes."""
    for name, value in network.named_parameters():
        if name.startswith("score_pool3"):
            value.mul_(30)
    return network


def _masks(uri):
    refs = storage.list_objects(uri)
    tables = [pq.read_table(io.BytesIO(storage.read_bytes(ref.uri))) for ref in refs]
    rows = [row for table in tables for row in table.to_pylist()]
    assert {row["status"] for row in rows} == {"ok"}
    return {row["key"]: images.decode_label(row["mask"]["bytes"]) for row in rows}


def test_depth_and_hha_reach_the_network_from_files_and_from_shards(ray_session, tmp_path):
    expected = published.nyud(tmp_path / "in")
    files = opened(tmp_path / "in", expected)
    shards = prepared(files, tmp_path / "shards")
    streams = (Stream("color", 3), Stream("hha", 3), Stream("depth", 1))
    network = _detailed(random_network(num_classes=40, streams=streams, seed=3))
    planes = (("hha", NYUD_HHA), ("depth", NYUD_DEPTH))
    config = ModelConfig(
        spec=network.spec, classes=nyud.CLASSES, normalization=NYUD_COLOR, planes=planes
    )
    checkpoint.save(tmp_path / "net", network, config)
    segmenter = Segmenter(network, config, device="cpu")
    for number, source in enumerate((files, shards)):
        settings = SegmentConfig(
            checkpoint=str(tmp_path / "net"), output=str(tmp_path / f"out{number}")
        )
        found = _masks(segment(settings, source, progress=_quiet).masks)
        assert set(found) == set(expected.images)
        for key, mask in found.items():
            wanted = segmenter(expected.images[key], **expected.planes[key])
            flipped = expected.planes[key] | {"depth": expected.planes[key]["depth"][::-1].copy()}
            assert (segmenter(expected.images[key], **flipped) != wanted).any()
            np.testing.assert_array_equal(mask, wanted)
    hha_only = _detailed(random_network(num_classes=40, seed=3))
    config = ModelConfig(
        spec=hha_only.spec, classes=nyud.CLASSES, normalization=NYUD_HHA, image_plane="hha"
    )
    checkpoint.save(tmp_path / "hha", hha_only, config)
    alone = SegmentConfig(checkpoint=str(tmp_path / "hha"), output=str(tmp_path / "alone"))
    on_images = dataclasses.replace(config, image_plane="")
    as_image = Segmenter(hha_only, on_images, device="cpu")
    for key, mask in _masks(segment(alone, shards, progress=_quiet).masks).items():
        np.testing.assert_array_equal(mask, as_image(expected.planes[key]["hha"]))
        assert (mask != as_image(expected.images[key])).any()
    colors_only = open_source(str(tmp_path / "in" / "data" / "images"))
    with pytest.raises(InputError, match=r"needs 'hha' for each image.*it has images and nothing"):
        segment(settings, colors_only, progress=_quiet)


def test_each_task_is_segmented_scored_and_shown_by_its_name(ray_session, tmp_path):
    expected = published.siftflow(tmp_path / "in")
    source = prepared(opened(tmp_path / "in", expected), tmp_path / "shards")
    network = _detailed(random_network(num_classes=33, more_tasks=(Task("geo", 3),)))
    config = ModelConfig(
        spec=network.spec,
        classes=siftflow.CLASSES,
        normalization=SIFT_FLOW,
        more_classes=(source.tasks["geo"],),
    )
    checkpoint.save(tmp_path / "net", network, config)
    for task in (None, "geo"):
        settings = SegmentConfig(
            checkpoint=str(tmp_path / "net"), output=str(tmp_path / "out"), task=task
        )
        masks = segment(settings, source, progress=_quiet).masks
        name, classes = source.labels_of(task)
        total = Confusion(len(classes))
        segmenter = Segmenter(network, config, device="cpu", task=task)
        for key, image in expected.images.items():
            label = expected.planes[key]["geo"] if task else expected.labels[key]
            total.update(label, segmenter(image), classes.void_id)
        assert np.count_nonzero(total.counts.sum(axis=0)) > 1
        found = evaluate(masks, source, task=task)
        assert found.label_name == name
        np.testing.assert_array_equal(found.confusion.counts, total.counts)
        assert write_report(found, source, str(tmp_path / f"report-{task}"))["panel"]
    with pytest.raises(InputError, match=r"no labels for task 'depth'.*it has \['geo'\]"):
        evaluate(masks, source, task="depth")
    with pytest.raises(InputError, match=r"classes .* ids would be compared"):
        evaluate(masks, source)  # masks of geo against labels of sem
