"""Input, label and predicted mask side by side, as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fcn_model import ClassList

COLUMNS = ("input", "label", "predicted mask")
CELL_WIDTH, CELL_MAX_HEIGHT, GAP, MARGIN = 300, 300, 10, 20
BACKGROUND, INK, FAINT = (255, 255, 255), (32, 36, 44), (120, 126, 138)
VOID_DARK, VOID_LIGHT, STRIPE = (168, 172, 180), (214, 217, 222), 6

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Example:
    """One row of a panel: ``image`` (H, W, 3) uint8 RGB; ``label``, ``mask`` (H, W) uint8 ids."""

    key: str
    mean_iu: float
    image: Pixels
    label: Pixels
    mask: Pixels


def draw_panel(examples: Sequence[Example], classes: ClassList) -> bytes:
    """A PNG with one row per example and a legend of the classes that occur. Void is hatched."""
    rows = [_row(example, classes) for example in examples]
    shown = sorted({int(i) for e in examples for ids in (e.label, e.mask) for i in np.unique(ids)})
    legend = _legend([index for index in shown if index < len(classes)], classes)
    width = 3 * CELL_WIDTH + 2 * GAP + 2 * MARGIN
    header = 30
    height = 2 * MARGIN + header + sum(row.height + GAP for row in rows) + legend.height
    panel = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(panel)
    for column, title in enumerate(COLUMNS):
        draw.text((MARGIN + column * (CELL_WIDTH + GAP), MARGIN), title, INK, _font(17))
    top = MARGIN + header
    for row in rows:
        panel.paste(row, (MARGIN, top))
        top += row.height + GAP
    panel.paste(legend, (MARGIN, top))
    return _png(panel)


def draw_example(example: Example, classes: ClassList) -> bytes:
    """A JPEG of one example: its three pictures, without text."""
    file = io.BytesIO()
    _pictures(example, classes).save(file, "JPEG", quality=88, subsampling=0)
    return file.getvalue()


def colored(ids: Pixels, classes: ClassList) -> Pixels:
    """(H, W) ids as (H, W, 3) RGB in the palette's colours; void is hatched grey."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(classes)] = classes.palette
    rgb = table[ids]
    rows, columns = np.indices(ids.shape)
    dark = ((rows + columns) // STRIPE % 2).astype(bool)
    void = ids == classes.void_id
    rgb[void & dark], rgb[void & ~dark] = VOID_DARK, VOID_LIGHT
    return rgb


def _pictures(example: Example, classes: ClassList) -> Image.Image:
    height, width = example.label.shape
    scale = min(CELL_WIDTH / width, CELL_MAX_HEIGHT / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    strip = Image.new("RGB", (3 * CELL_WIDTH + 2 * GAP, size[1]), BACKGROUND)
    pictures = (
        (example.image, Image.Resampling.BICUBIC),
        (colored(example.label, classes), Image.Resampling.NEAREST),
        (colored(example.mask, classes), Image.Resampling.NEAREST),
    )
    for column, (pixels, resampling) in enumerate(pictures):
        picture = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, resampling)
        strip.paste(picture, (column * (CELL_WIDTH + GAP), 0))
    return strip


def _row(example: Example, classes: ClassList) -> Image.Image:
    strip = _pictures(example, classes)
    row = Image.new("RGB", (strip.width, strip.height + 22), BACKGROUND)
    row.paste(strip, (0, 0))
    text = f"{_printable(example.key)}   mean IU {example.mean_iu:.3f}"
    ImageDraw.Draw(row).text((0, strip.height + 3), text, FAINT, _font(13))
    return row


def _legend(shown: Sequence[int], classes: ClassList) -> Image.Image:
    entries = [(_printable(classes.names[index]), classes.palette[index]) for index in shown]
    entries.append(("void", VOID_DARK))
    font, line = _font(15), 28
    width = 3 * CELL_WIDTH + 2 * GAP
    places, left, top = [], 0, 6
    for name, _ in entries:
        needed = 26 + int(font.getlength(name)) + 22
        if left and left + needed > width:
            left, top = 0, top + line
        places.append((left, top))
        left += needed
    legend = Image.new("RGB", (width, top + line), BACKGROUND)
    draw = ImageDraw.Draw(legend)
    for (name, color), (x, y) in zip(entries, places, strict=True):
        draw.rounded_rectangle((x, y + 1, x + 18, y + 19), 4, color)
        draw.text((x + 26, y), name, INK, font)
    return legend


def _printable(text: str) -> str:
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown if len(shown) <= 70 else "…" + shown[-69:]


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
