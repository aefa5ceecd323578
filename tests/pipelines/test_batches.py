"""What the network is given: every input plane and every label of a view, in its place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fcn_model import ClassList, ModelConfig, NetworkSpec, Normalization
from fcn_model.normalize import NYUD_DEPTH
from fcn_model.spec import Stream, Task
from pipelines.augment import View
from pipelines.batches import collate, filler
from pipelines.decoding import Pair
from pipelines.errors import InputError

PLAIN = Normalization(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), scale=1.0, channel_order="rgb")
CONFIG = ModelConfig(
    spec=NetworkSpec(num_classes=3, more_tasks=(Task("geo", 2),), streams=(Stream("", 4),)),
    classes=ClassList(names=("a", "b", "c")),
    more_classes=(ClassList(names=("sky", "ground"), void_id=9),),
    normalization=PLAIN,
    planes=(("depth", NYUD_DEPTH),),
)


def drawn(key: str, height: int, width: int) -> Pair:
    rng = np.random.default_rng(height * width)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    label = rng.integers(0, 3, (height, width), dtype=np.uint8)
    depth = rng.integers(0, 9000, (height, width)).astype(np.uint16)
    geo = rng.integers(0, 2, (height, width), dtype=np.uint8)
    return Pair(key, image, label, {"depth": depth, "geo": geo})


def test_a_batch_is_zero_and_void_outside_each_image_and_where_the_loss_does_not_count():
    rng = np.random.default_rng(0)
    kept = rng.random((12, 17)) < 0.5
    views = [
        View.of(drawn("whole", 9, 17)),
        View(drawn("shifted", 10, 14), (12, 17), corner=(2, 0), kept=kept),
        View(drawn("mirrored", 4, 3), (5, 8), corner=(0, 5)),
    ]
    mirrored = views[2].pair
    views[2] = View(
        Pair(
            "mirrored",
            mirrored.image[:, ::-1],
            mirrored.label[:, ::-1],
            {name: plane[:, ::-1] for name, plane in mirrored.planes.items()},
        ),
        views[2].size,
        views[2].corner,
    )
    batch = collate(views, CONFIG)
    assert (batch.sizes, batch.images) == (((9, 17), (12, 17), (5, 8)), 3)
    images = np.zeros((3, 4, 12, 17), np.float32)
    labels = np.full((3, 12, 17), 255), np.full((3, 12, 17), 9)
    for n, view in enumerate(views):
        for y, x in np.ndindex(*view.pair.label.shape):
            row, column = view.corner[0] + y, view.corner[1] + x
            images[n, :3, row, column] = view.pair.image[y, x]
            depth = max(int(view.pair.planes["depth"][y, x]), 1)
            images[n, 3, row, column] = np.log(depth) - 7.844
            if view.kept is None or view.kept[row, column]:
                labels[0][n, row, column] = view.pair.label[y, x]
                labels[1][n, row, column] = view.pair.planes["geo"][y, x]
    torch.testing.assert_close(batch.images_NCHW, torch.from_numpy(images))
    for ours, theirs in zip(batch.labels_NHW, labels, strict=True):
        assert (ours.numpy() == theirs).all()


def test_a_filler_is_no_image_and_all_void():
    batch = filler(CONFIG)
    assert (batch.images, batch.images_NCHW.shape) == (0, (1, 4, 1, 1))
    assert [labels.tolist() for labels in batch.labels_NHW] == [[[[255]]], [[[9]]]]


def test_a_plane_that_an_image_lacks_is_named_with_the_image():
    pair = drawn("x/17", 2, 2)
    bare = Pair(pair.key, pair.image, pair.label, {"geo": pair.planes["geo"]})
    with pytest.raises(InputError, match=r"x/17 has no depth beside it.*\['geo'\]"):
        collate([View.of(bare)], CONFIG)
