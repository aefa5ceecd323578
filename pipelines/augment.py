"""Random windows, mirroring, shifts and cells of training pairs: what one step sees of an image.

Whatever is done to an image is done to its labels and further planes, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fcn_model.geometry import Coordinates
from fcn_model.sampling import kept_pixels
from pipelines.decoding import Pair
from pipelines.train_settings import Solver

Pixels = NDArray[np.generic]


@dataclass(frozen=True)
class View:
    """A pair, or what is visible of it, in a frame of (height, width) pixels.

    Its first pixel lies at ``corner``, (row, column). The frame around it is the mean color and
    void. ``kept``, (height, width) of the frame, says which pixels the loss counts; None is all.
    """

    pair: Pair
    size: tuple[int, int]
    corner: tuple[int, int] = (0, 0)
    kept: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, pair: Pair) -> View:
        """The whole pair as it is."""
        return cls(pair, (pair.label.shape[0], pair.label.shape[1]))


def augment(pair: Pair, rng: np.random.Generator, solver: Solver, cells: Coordinates) -> View:
    """Draw a window, mirroring, a shift, and the cells that count, as the solver asks for each.

    ``cells`` are the coordinates of the network's coarsest scores.
    """
    if solver.crop is not None:
        pair = crop(pair, rng, solver.crop)
    if solver.mirror and rng.random() < 0.5:
        pair = every_plane(pair, lambda plane: plane[:, ::-1])
    view = shift(pair, rng, solver.jitter) if solver.jitter else View.of(pair)
    if solver.sampling < 1:
        view = replace(view, kept=kept_pixels(view.size, cells, solver.sampling, rng))
    return view


def crop(pair: Pair, rng: np.random.Generator, window: tuple[int, int]) -> Pair:
    """A random window of (height, width); an axis that is shorter is kept whole."""
    top, left = (
        int(rng.integers(0, max(have - want, 0) + 1))
        for have, want in zip(pair.label.shape, window, strict=True)
    )
    rows, columns = slice(top, top + window[0]), slice(left, left + window[1])
    return every_plane(pair, lambda plane: plane[rows, columns])


def shift(pair: Pair, rng: np.random.Generator, pixels: int) -> View:
    """Translate by up to ``pixels`` each way on both axes, uniformly, in a frame of the same size.

    At least one row and one column stay visible. The paper's jitter, section 4.3, has 32.
    """
    view = View.of(pair)
    moves = [
        int(rng.integers(-limit, limit + 1))
        for limit in (min(pixels, length - 1) for length in view.size)
    ]
    # What moves in stays at its corner; what moves out at the other side is cut.
    rows, columns = (
        slice(max(0, -move), length - max(0, move))
        for move, length in zip(moves, view.size, strict=True)
    )
    visible = every_plane(pair, lambda plane: plane[rows, columns])
    return replace(view, pair=visible, corner=(max(0, moves[0]), max(0, moves[1])))


def every_plane(pair: Pair, change: Callable[[Pixels], Pixels]) -> Pair:
    """The pair with its image, label and every further plane, all (H, W, ...), changed alike."""
    planes = {name: change(plane) for name, plane in pair.planes.items()}
    return replace(pair, image=change(pair.image), label=change(pair.label), planes=planes)
