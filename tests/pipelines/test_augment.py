"""What augmentation does to an image it does to its labels and planes, and to nothing else."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from fcn_model.geometry import Coordinates
from pipelines.augment import augment, crop, shift
from pipelines.decoding import Pair
from pipelines.train_settings import Solver

CELLS = Coordinates(Fraction(4), Fraction(0))


def marked(height: int, width: int) -> Pair:
    """A pair whose every pixel says where it comes from, in all of its planes."""
    label = np.arange(height * width, dtype=np.uint8).reshape(height, width)
    hha = np.repeat(label[:, :, None], 3, axis=2)
    planes: dict[str, np.ndarray] = {
        "depth": label.astype(np.uint16) + 1000,
        "hha": hha,
        "geo": 255 - label,
    }
    return Pair("k", hha + 1, label, planes)


def agrees(pair: Pair) -> bool:
    label = pair.label
    return (
        (pair.image == label[:, :, None] + 1).all()
        and (pair.planes["depth"] == label.astype(int) + 1000).all()
        and (pair.planes["hha"] == label[:, :, None]).all()
        and (pair.planes["geo"] == 255 - label).all()
    )


def test_a_crop_is_a_window_of_the_image_its_label_and_its_planes():
    rng = np.random.default_rng(0)
    pair = marked(6, 7)
    seen = set()
    for _ in range(300):
        cut = augment(pair, rng, Solver(crop=(4, 9), mirror=True), CELLS).pair
        assert cut.label.shape == (4, 7)  # wider than the image: the whole axis
        assert agrees(cut)
        rows, mirrored = cut.label[:, 0] // 7, cut.label[0, 0] > cut.label[0, 1]
        straight = cut.label[:, ::-1] if mirrored else cut.label
        assert (straight == pair.label[rows[0] : rows[0] + 4]).all()
        seen.add((int(rows[0]), bool(mirrored)))
    assert seen == {(top, mirrored) for top in range(3) for mirrored in (False, True)}
    assert crop(pair, rng, (9, 9)).label.shape == (6, 7)


def test_a_shift_moves_every_pixel_alike_and_is_uniform():
    rng = np.random.default_rng(0)
    pair = marked(5, 9)
    seen: dict[tuple[int, int], int] = {}
    for _ in range(4000):
        view = shift(pair, rng, 2)
        assert (view.size, agrees(view.pair)) == ((5, 9), True)
        first = int(view.pair.label[0, 0])
        move = view.corner[0] - first // 9, view.corner[1] - first % 9
        for (y, x), value in np.ndenumerate(view.pair.label):
            assert pair.label[view.corner[0] + y - move[0], view.corner[1] + x - move[1]] == value
        lost = abs(move[0]), abs(move[1])
        assert view.pair.label.shape == (5 - lost[0], 9 - lost[1])
        seen[move] = seen.get(move, 0) + 1
    assert set(seen) == {(y, x) for y in range(-2, 3) for x in range(-2, 3)}
    assert min(seen.values()) > 4000 / 25 * 0.6


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (20, 3)])
def test_a_shift_leaves_something_of_every_image(size):
    rng = np.random.default_rng(0)
    for _ in range(50):
        view = shift(marked(*size), rng, 32)
        assert view.pair.label.size >= 1
        assert view.size == size


def test_nothing_is_drawn_that_was_not_asked_for():
    pair = marked(3, 4)
    view = augment(pair, np.random.default_rng(0), Solver(mirror=False), CELLS)
    assert (view.size, view.corner, view.kept) == ((3, 4), (0, 0), None)
    assert agrees(view.pair)
    assert (view.pair.label == pair.label).all()
