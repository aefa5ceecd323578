"""Training runs as a picture: loss and validation mean IU by images seen, several runs overlaid.

    python -m benchmarks.curves runs/32s/history.json runs/16s/history.json --output curves.png

Each file is the ``history.json`` of a run, at a path or an ``s3://`` URI; the legend has the names
of the folders that hold them, or those of ``--names``. ``--seen`` moves the later stages of a
staged run to where they belong: how many images each run's start weights had seen. Both take one
value a run, so they stand after the files.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from PIL import Image, ImageDraw, ImageFont

from pipelines import storage

SCALE = 2
"""Pixels drawn for one of the picture; the smaller picture has smooth lines."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM, LEGEND = 520, 330, 62, 22, 42, 48, 24
BACKGROUND, INK, FAINT, GRID = (255, 255, 255), (32, 36, 44), (120, 126, 138), (228, 230, 234)
COLORS = (
    *((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233)),
    *((230, 159, 0), (90, 90, 90)),
)
"""Distinct to the colour-blind too (Okabe and Ito)."""

PANELS = (("loss", "loss per valid pixel, training"), ("mean_iu", "mean IU, validation"))


@dataclass(frozen=True, kw_only=True)
class Options:
    """Draw the curves of training runs."""

    histories: tyro.conf.Positional[tuple[str, ...]]
    """The runs' history.json."""
    output: Path
    """PNG file to write."""
    names: tuple[str, ...] = ()
    """What the legend calls the runs, one name each."""
    seen: tuple[int, ...] = ()
    """Images that the start weights of each run had seen; by default 0."""


@dataclass(frozen=True)
class Frame:
    """The part of a panel that holds the curves, and the values at its edges."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """The pixel, from the panel's top left, of a point in units of the data."""
        across = (x - self.x_range[0]) / (self.x_range[1] - self.x_range[0])
        up = (y - self.y_range[0]) / (self.y_range[1] - self.y_range[0])
        return (
            LEFT + across * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - up * (HEIGHT - BOTTOM - TOP),
        )


def main() -> None:
    """Write the picture."""
    options = tyro.cli(Options, description=__doc__)
    uris = options.histories
    names = options.names or tuple(Path(uri).parent.name for uri in uris)
    seen = options.seen or (0,) * len(uris)
    if not uris or not len(uris) == len(set(names)) == len(names) == len(seen):
        raise SystemExit(
            f"error: {len(uris)} histories need as many different names and counts of images seen, "
            f"got names {list(names)} and seen {list(seen)}; give at least one history"
        )
    runs = {}
    for uri, name, before in zip(uris, names, seen, strict=True):
        entries = json.loads(storage.read_bytes(storage.parse_uri(uri)))
        if not entries:
            raise SystemExit(f"error: {uri} has no epoch to draw")
        runs[name] = [entry | {"images": entry["images"] + before} for entry in entries]
    options.output.write_bytes(draw(runs))
    print(options.output)


def draw(runs: dict[str, list[dict[str, Any]]]) -> bytes:
    """A PNG of the runs' histories by name; entries have ``images``, ``loss`` and ``mean_iu``."""
    lines = -(-len(runs) // 2)
    size = (2 * WIDTH * SCALE, (HEIGHT + LEGEND * lines + 10) * SCALE)
    picture = Image.new("RGB", size, BACKGROUND)
    for column, (field, title) in enumerate(PANELS):
        curves = [[(entry["images"], entry[field]) for entry in run] for run in runs.values()]
        picture.paste(_panel(title, curves), (column * WIDTH * SCALE, 0))
    canvas = ImageDraw.Draw(picture)
    for index, name in enumerate(runs):
        x, y = LEFT + index % 2 * WIDTH, HEIGHT + index // 2 * LEGEND
        _line(canvas, [(x, y + 9), (x + 26, y + 9)], COLORS[index % len(COLORS)], 2.5)
        _text(canvas, (x + 34, y), name, INK, 14)
    file = io.BytesIO()
    small = picture.resize((size[0] // SCALE, size[1] // SCALE), Image.Resampling.LANCZOS)
    small.save(file, "PNG", optimize=True)
    return file.getvalue()


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Round values around ``low`` to ``high``, evenly 1, 2 or 5 times a power of ten apart.

    The first is at most ``low`` and the last at least ``high``; there are about ``count``.
    """
    # A single value gets a tenth of itself around it, so that its labels differ.
    rough = (high - low or 0.1 * abs(high) or 1.0) / max(count - 1, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(nice * power for nice in (1, 2, 5, 10) if nice * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, max(last, first + 1) + 1)]


def _panel(title: str, curves: Sequence[Sequence[tuple[float, float]]]) -> Image.Image:
    panel = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), BACKGROUND)
    canvas = ImageDraw.Draw(panel)
    points = [point for curve in curves for point in curve]
    x_ticks = ticks(0, max(x for x, _ in points))
    y_ticks = ticks(min(y for _, y in points), max(y for _, y in points))
    frame = Frame((x_ticks[0], x_ticks[-1]), (y_ticks[0], y_ticks[-1]))
    for value in y_ticks:
        _line(canvas, [frame.place(x, value) for x in frame.x_range], GRID, 1)
        x, y = frame.place(frame.x_range[0], value)
        _text(canvas, (x - 8, y), f"{value:.4g}", FAINT, 12, "rm")
    for value in x_ticks:
        x, y = frame.place(value, frame.y_range[0])
        _line(canvas, [(x, y), (x, y + 4)], FAINT, 1)
        _text(canvas, (x, y + 7), f"{value:,.6g}", FAINT, 12, "mt")
    _text(canvas, (LEFT, 14), title, INK, 15)
    _text(canvas, ((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 20), "images seen", FAINT, 12, "mt")
    for index, curve in enumerate(curves):
        color = COLORS[index % len(COLORS)]
        places = [frame.place(*point) for point in curve]
        _line(canvas, places, color, 2)
        for x, y in places:
            box = [SCALE * value for value in (x - 3, y - 3, x + 3, y + 3)]
            canvas.ellipse(box, color)
    return panel


def _line(
    canvas: ImageDraw.ImageDraw,
    places: Sequence[tuple[float, float]],
    color: tuple[int, int, int],
    width: float,
) -> None:
    scaled = [(SCALE * x, SCALE * y) for x, y in places]
    canvas.line(scaled, color, round(SCALE * width), joint="curve")


def _text(
    canvas: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    color: tuple[int, int, int],
    size: int,
    anchor: str = "la",
) -> None:
    font = ImageFont.load_default(size=SCALE * size)
    canvas.text((SCALE * place[0], SCALE * place[1]), text, color, font, anchor)


if __name__ == "__main__":
    main()
