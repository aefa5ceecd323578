"""Pictures show the pixels they should, and a report is one safe file."""

from __future__ import annotations

import html
import io
import re

import numpy as np
import pytest
from PIL import Image

from fcn_model import ClassList, Confusion
from pipelines.evaluation import Evaluation
from pipelines.panel import CELL_WIDTH, GAP, MARGIN, Example, colored, draw_example, draw_panel
from pipelines.report import choose, render
from pipelines.scoring import ImageScore

CLASSES = ClassList(names=("sky", "<b>road</b>"), palette=((10, 20, 30), (200, 100, 50)))
HOSTILE = "<script>alert(1)</script>/../\N{SKULL}.jpg"


def _example(key="a", size=(30, 60)):
    label = np.zeros(size, np.uint8)
    label[:, size[1] // 2 :] = 1
    label[:2] = CLASSES.void_id
    image = np.full((*size, 3), 90, np.uint8)
    return Example(key, 0.5, image, label, (label != 0).astype(np.uint8))


def _evaluation(*keys):
    confusion = Confusion(2)
    confusion.counts += np.array([[5, 1], [2, 7]])
    images = tuple(ImageScore.of(key, confusion, 4) for key in keys)
    images += (ImageScore(HOSTILE, "error"),)
    return Evaluation("s3://b/<m>", "s3://b/l", CLASSES, confusion, images, 0, "d" * 64, "FCN-8s")


def test_ids_get_their_palette_colours_and_void_only_greys():
    rgb = colored(np.array([[0, 1, 255]] * 12, np.uint8), CLASSES)
    assert (rgb[:, 0] == CLASSES.palette[0]).all()
    assert (rgb[:, 1] == CLASSES.palette[1]).all()
    assert len(np.unique(rgb[:, 2], axis=0)) == 2  # hatched
    assert not {tuple(color) for color in rgb[:, 2].tolist()} & set(CLASSES.palette)


@pytest.mark.parametrize("size", [(30, 60), (60, 30), (1, 1), (400, 3)])
def test_a_panel_shows_image_label_and_mask_in_their_columns(size):
    example = _example(size=size)
    strip = np.asarray(Image.open(io.BytesIO(draw_example(example, CLASSES))))
    for column, pixels in enumerate(
        (example.image, colored(example.label, CLASSES), colored(example.mask, CLASSES))
    ):
        corner = strip[-1, column * (CELL_WIDTH + GAP)].astype(int)
        assert abs(corner - pixels[-1, 0]).max() < 12  # JPEG
    panel = Image.open(io.BytesIO(draw_panel([example, example], CLASSES)))
    assert panel.width == 3 * CELL_WIDTH + 2 * GAP + 2 * MARGIN


def test_examples_run_from_the_worst_to_the_best():
    images = []
    for right in range(10):
        confusion = Confusion(2)
        confusion.counts += np.array([[right, 10 - right], [0, 0]])
        images.append(ImageScore.of(f"i{right}", confusion, 0))
    chosen = choose([*reversed(images), ImageScore("bad", "error")], 4)
    assert [key for key, _ in chosen] == ["i0", "i3", "i6", "i9"]
    assert chosen[-1][1] == (0.9 + 0) / 2  # class 1 was predicted, and never right
    assert len(choose(images[:2], 4)) == 2


def test_a_report_is_one_file_and_hostile_names_stay_text():
    text = render(_evaluation("a", "b"), [_example(HOSTILE)])
    assert "<script" not in text
    assert html.escape(HOSTILE, quote=False) in text
    assert "<b>road" not in text
    assert not re.search(r"""(src|href)=["'](?!data:)""", text)
    assert f"{Confusion.from_counts(np.array([[5, 1], [2, 7]])).mean_iu:.4f}" in text


def test_the_largest_report_stays_below_five_megabytes():
    count = 255
    classes = ClassList(names=tuple(f"a class with a long name {index}" for index in range(count)))
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (480, 640, 3), dtype=np.uint8)
    ids = rng.integers(0, count, (480, 640), dtype=np.uint8)
    confusion = Confusion(count)
    confusion.counts += rng.integers(1, 1000, (count, count))
    images = tuple(ImageScore.of(f"i{index}", confusion, 0) for index in range(50))
    evaluation = Evaluation("m", "l", classes, confusion, images, 0, "d", "n")
    text = render(evaluation, [Example(f"i{index}", 0.1, noise, ids, ids) for index in range(6)])
    assert len(text.encode()) < 5_000_000
