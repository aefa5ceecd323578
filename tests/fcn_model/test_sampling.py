from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from fcn_model import build
from fcn_model.geometry import Coordinates, coordinates
from fcn_model.sampling import cells_of, kept_pixels
from tests.support.networks import narrow_spec


def vgg_cells() -> Coordinates:
    backbone = build(narrow_spec()).backbone
    return coordinates(backbone.path(backbone.top))


@pytest.mark.parametrize("cells", [vgg_cells(), Coordinates(Fraction(4), Fraction(-5, 2))])
def test_a_pixel_belongs_to_the_cell_with_the_nearest_centre(cells: Coordinates) -> None:
    for pixel, cell in enumerate(cells_of(100, cells).tolist()):
        distances = {n: abs(cells.scale * n + cells.offset - pixel) for n in range(-40, 60)}
        assert distances[cell] == min(distances.values())


def test_every_cell_is_kept_whole_or_not_at_all_and_with_the_probability_asked_for() -> None:
    cells, rng = vgg_cells(), np.random.default_rng(0)
    rows, columns = cells_of(70, cells), cells_of(130, cells)
    counted = []
    for _ in range(400):
        kept = kept_pixels((70, 130), cells, 0.25, rng)
        assert kept.shape == (70, 130)
        for row in np.unique(rows):
            for column in np.unique(columns):
                block = kept[np.ix_(rows == row, columns == column)]
                assert block.all() or not block.any()
                counted.append(block.all())
    # Independent draws: the mean of n lies within four standard deviations.
    assert abs(np.mean(counted) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(counted))
    together = np.array(counted).reshape(400, -1)
    covariance = np.corrcoef(together.T) - np.eye(together.shape[1])
    assert np.abs(covariance).max() < 5 / np.sqrt(400)
