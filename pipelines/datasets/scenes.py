"""Generated scenes: labelled images that a fresh machine can make for itself.

Balls, crates, tents and bushes lie on a ground, hide each other and stand in uneven light. Every
surface, the ground included, draws its colours from the same distribution, so a mean colour tells
nothing: a ball is round and has rings, a crate has right angles and a chequered side, a tent is a
striped triangle, a bush has a wavy outline and leaves. A band of void pixels lies along every
outline, as in PASCAL VOC.
"""

from __future__ import annotations

import io
import json
import zlib
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from PIL import Image

from fcn_model.classes import ClassList
from pipelines import images as codecs
from pipelines import storage

CLASSES = ClassList(
    names=("ground", "ball", "crate", "tent", "bush"),
    palette=((70, 78, 92), (230, 85, 70), (240, 185, 55), (60, 140, 215), (85, 175, 95)),
    void_id=255,
)
"""The classes of every generated scene, id 0 to 4."""

SIDES = (112, 176)
"""The least and greatest height and width of a scene, in pixels."""

JPEG_QUALITY = 92

Plane = np.ndarray
"""(H, W) float64."""


def write_scenes(root: str, *, images: int, seed: int, split: str) -> None:
    """Write ``images`` scenes under the URI or path ``root`` as folder pairs.

    They lie at ``images/NAME.jpg`` and ``labels/NAME.png`` (palette PNG of class ids), with
    ``classes.json`` beside the two folders. The same ``seed`` and ``split`` give the same scenes
    again, and the first n of a longer series are those of a shorter one; another split gives
    others. What lies there under the same names and differs is replaced. Raises StoreError.
    """
    root = storage.parse_uri(root)
    listed = json.dumps(CLASSES.to_dict(), indent=1).encode()
    _put(storage.join(root, "classes.json"), listed)
    for index in range(images):
        rng = np.random.default_rng([seed, zlib.crc32(split.encode()), index])
        height, width = (int(side) for side in rng.integers(*SIDES, size=2, endpoint=True))
        image, label = scene(rng, height, width)
        name = f"{split}-{index:04d}"
        photo = io.BytesIO()
        Image.fromarray(image).save(photo, "JPEG", quality=JPEG_QUALITY)
        _put(storage.join(root, "images", f"{name}.jpg"), photo.getvalue())
        mask = codecs.encode_label(label, CLASSES)
        _put(storage.join(root, "labels", f"{name}.png"), mask)


def _put(uri: str, data: bytes) -> None:
    """Write it unless it is there already: a new time would count as a new version."""
    if not storage.create(uri, data) and storage.read_bytes(uri) != data:
        storage.replace(uri, data)


def scene(
    seed: int | Generator, height: int, width: int
) -> tuple[np.ndarray[tuple[int, int, int]], np.ndarray[tuple[int, int]]]:
    """Draw one scene: image (height, width, 3) uint8 RGB, label (height, width) uint8.

    The label holds ids 0 to 4, and 255 within two pixels of an outline. Deterministic for a given
    seed, or state of a given generator.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    image = _surface(rng, _clouds(rng, height, width, cell=24))
    label = np.zeros((height, width), np.uint8)
    instance = np.zeros((height, width), np.uint8)
    reach = np.sqrt(height * width)
    for number in range(1, int(rng.integers(3, 6)) + 1):
        kind = int(rng.integers(1, len(CLASSES)))
        radius = rng.uniform(0.15, 0.26) * reach
        angle = rng.uniform(0, 2 * np.pi)
        dy = y - rng.uniform(0.1, 0.9) * height
        dx = x - rng.uniform(0.1, 0.9) * width
        u = np.cos(angle) * dx + np.sin(angle) * dy
        v = np.cos(angle) * dy - np.sin(angle) * dx
        distance, pattern = _DRAW[kind](rng, u, v, radius)
        cover = np.clip(0.5 - distance, 0, 1)[..., None]
        image = (1 - cover) * image + cover * _surface(rng, pattern)
        label[distance < 0] = kind
        instance[distance < 0] = number
    label[_near_outline(instance)] = CLASSES.void_id
    return _photograph(rng, image), label


def _ball(rng: Generator, u: Plane, v: Plane, radius: float) -> tuple[Plane, Plane]:
    """Signed distance to a disc's edge (negative inside), and rings around its centre in 0..1."""
    from_centre = np.hypot(u, v)
    return from_centre - radius, _wave(rng, from_centre, period=(18, 26))


def _crate(rng: Generator, u: Plane, v: Plane, radius: float) -> tuple[Plane, Plane]:
    """Signed distance to a rectangle's edge, and a chequered pattern along its sides."""
    aspect = rng.uniform(0.75, 1.3)
    half_u, half_v = 0.85 * radius * aspect, 0.85 * radius / aspect
    along_u, along_v = (_wave(rng, along, period=(12, 16)) for along in (u, v))
    checks = along_u * along_v + (1 - along_u) * (1 - along_v)
    return np.maximum(np.abs(u) - half_u, np.abs(v) - half_v), checks


def _tent(rng: Generator, u: Plane, v: Plane, radius: float) -> tuple[Plane, Plane]:
    """Signed distance to a triangle's edge, and stripes across one of its sides."""
    sides = [np.cos(turn) * u + np.sin(turn) * v for turn in np.radians((90, 210, 330))]
    return np.maximum.reduce(sides) - 0.7 * radius, _wave(rng, u, period=(5, 7))


def _bush(rng: Generator, u: Plane, v: Plane, radius: float) -> tuple[Plane, Plane]:
    """Signed distance (nearly) to a wavy outline, and leaves of two to four pixels."""
    turn = np.arctan2(v, u)
    waves = sum(rng.uniform(0.05, 0.12) * np.cos(k * turn + rng.uniform(0, 7)) for k in (3, 5, 7))
    leaves = _clouds(rng, *u.shape, cell=int(rng.integers(3, 5)))
    return np.hypot(u, v) - radius * (0.95 + waves), leaves


_DRAW: dict[int, Callable[[Generator, Plane, Plane, float], tuple[Plane, Plane]]] = {
    1: _ball,
    2: _crate,
    3: _tent,
    4: _bush,
}


def _wave(rng: Generator, along: Plane, *, period: tuple[float, float]) -> Plane:
    """A nearly square wave in 0..1 along a coordinate; pixels, and a range of periods in pixels."""
    phase = 2 * np.pi * along / rng.uniform(*period) + rng.uniform(0, 2 * np.pi)
    return (1 + np.tanh(3 * np.sin(phase))) / 2


def _clouds(rng: Generator, height: int, width: int, *, cell: int) -> Plane:
    """Smooth random values in 0..1 that change over about ``cell`` pixels."""
    knots = rng.random((height // cell + 2, width // cell + 2))

    def between(length: int, axis: int, values: Plane) -> Plane:
        position = np.arange(length) / cell
        low = position.astype(int)
        share = position - low
        share = share * share * (3 - 2 * share)
        share = share[:, None] if axis == 0 else share[None, :]
        return np.take(values, low, axis) * (1 - share) + np.take(values, low + 1, axis) * share

    return between(width, 1, between(height, 0, knots))


def _surface(rng: Generator, pattern: Plane) -> np.ndarray:
    """Paint a pattern in 0..1 with two random colours, (H, W, 3) in about 0..255.

    Their mean and their difference have the same distribution for every class.
    """
    middle = rng.uniform(70, 185, size=3)
    apart = rng.uniform(50, 90, size=3) * rng.choice((-1, 1))
    return middle + (pattern[..., None] - 0.5) * apart


def _photograph(rng: Generator, image: np.ndarray) -> np.ndarray:
    """Light from one side, a shade drifting over the scene, and sensor noise; uint8."""
    height, width = image.shape[:2]
    y, x = np.mgrid[: 1 : height * 1j, : 1 : width * 1j]
    from_side = rng.uniform(0, 2 * np.pi)
    slope = (np.cos(from_side) * (x - 0.5) + np.sin(from_side) * (y - 0.5)) * rng.uniform(0, 0.6)
    shade = 0.85 + 0.3 * _clouds(rng, height, width, cell=64)
    noise = rng.normal(0, rng.uniform(2, 7), image.shape)
    lit = image * ((1 + slope) * shade)[..., None] + noise
    return np.clip(np.rint(lit), 0, 255).astype(np.uint8)


def _near_outline(instance: np.ndarray) -> np.ndarray:
    """True within two pixels of another object, (H, W) bool.

    Outlines between two objects of one class count, and those against the ground.
    """
    height, width = instance.shape
    padded = np.pad(instance, 2, mode="edge")
    windows = [
        padded[dy : dy + height, dx : dx + width]
        for dy in range(5)
        for dx in range(5)
        if (dy - 2) ** 2 + (dx - 2) ** 2 <= 4
    ]
    return np.maximum.reduce(windows) != np.minimum.reduce(windows)
