"""What a JPEG costs to decode, and a mask to encode as PNG, by Pillow and by others.

    python -m benchmarks.codecs --data ../shared/data

Processor time on one thread, over PASCAL VOC's photographs and label images, each way with every
file in turn with the others; as ratios to the way that this project takes. The others
come with the extra ``bench``; what is not installed is left out, and said to be.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import statistics
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image

from benchmarks.machine import describe
from benchmarks.photographs import photo
from benchmarks.ratios import Ratio
from fcn_model import ClassList
from pipelines import images
from tests.support import made

Array = NDArray[np.uint8]
Modules = Mapping[str, Any]
VOID = 255
OTHERS = {
    "simplejpeg": "simplejpeg",
    "cv2": "opencv-python-headless",
    "imagecodecs": "imagecodecs",
    "fpng_py": "fpng_py",
}
"""The package of each module."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Decoders of JPEG and encoders of PNG."""

    data: Path = Path("../shared/data")
    """Folder that holds voc2012_subset/."""
    files: int = 100
    """Of each kind."""
    repeats: int = 3
    """Turns over all files; the median of them counts."""


def main() -> None:
    """Run the benchmark that the command line describes."""
    options = tyro.cli(Options, description=__doc__)
    modules = installed()
    print(describe("pillow", *(OTHERS[name] for name in modules)))
    folder = options.data / "voc2012_subset"
    photos = [p.read_bytes() for p in sorted((folder / "JPEGImages").iterdir())[: options.files]]
    labels = sorted((folder / "SegmentationClass").iterdir())[: options.files]
    masks = [np.asarray(Image.open(path)) % VOID for path in labels]
    print("\nJPEG to RGB              time ÷ ours   equal pixels")
    took, made = times(decoders(modules), photos, options.repeats)
    for name, seconds in took.items():
        same = np.mean([np.mean(a == b) for a, b in zip(made[name], made["ours"], strict=True)])
        print(f"{name:24} {seconds / took['ours']:11.2f}   {same:12.4%}")
    print(f"ours: {1000 * took['ours'] / len(photos):.2f} ms a file")
    print("\nmask to PNG              time ÷ ours   bytes ÷ ours")
    took, made = times(encoders(modules), masks, options.repeats)
    for name, seconds in took.items():
        size = sum(map(len, made[name])) / sum(map(len, made["ours"]))
        print(f"{name:24} {seconds / took['ours']:11.2f}   {size:12.2f}")
    print(f"ours: {1000 * took['ours'] / len(masks):.2f} ms a mask")


def of_made_files(files: int, repeats: int) -> list[Ratio]:
    """The same with Pillow alone, on files made up here."""
    pixels = [photo(seed, 360, 480) for seed in range(files)]
    masks = [np.kron(p[::20, ::20, 0] % 21, np.ones((20, 20), np.uint8)) for p in pixels]
    decoded, _ = times(decoders({}), [made.jpg(each) for each in pixels], repeats)
    encoded, files_of = times(encoders({}), masks, repeats)
    size = {name: sum(map(len, each)) for name, each in files_of.items()}
    usual = "Pillow, level 6"
    return [
        Ratio("JPEG to RGB: ours ÷ Pillow", [decoded["ours"] / decoded["Pillow"]], at_least=False),
        Ratio("mask to PNG: ours ÷ Pillow", [encoded["ours"] / encoded[usual]], at_least=False),
        Ratio("bytes of PNG: ours ÷ Pillow", [size["ours"] / size[usual]], at_least=False),
    ]


def installed() -> Modules:
    """The others that are there, by name; the rest is named."""
    found = [name for name in OTHERS if importlib.util.find_spec(name)]
    if missing := [name for name in OTHERS if name not in found]:
        print(f"not installed, left out: {', '.join(missing)}")
    return {name: importlib.import_module(name) for name in found}


def decoders(modules: Modules) -> dict[str, Callable[[bytes], Array]]:
    """Ways from a JPEG file to (H, W, 3) uint8."""
    ways: dict[str, Callable[[bytes], Array]] = {
        "ours": images.decode_image,
        "Pillow": lambda data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")),
    }
    if simplejpeg := modules.get("simplejpeg"):
        ways["simplejpeg"] = simplejpeg.decode_jpeg
    if cv2 := modules.get("cv2"):
        cv2.setNumThreads(1)
        ways["OpenCV"] = lambda data: cv2.cvtColor(
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
        )
    if imagecodecs := modules.get("imagecodecs"):
        ways["imagecodecs"] = imagecodecs.jpeg8_decode
    return ways


def encoders(modules: Modules) -> dict[str, Callable[[Array], bytes]]:
    """Ways from (H, W) uint8 to a PNG file."""
    classes = ClassList(names=tuple(f"class {index}" for index in range(21)))
    ways: dict[str, Callable[[Array], bytes]] = {
        "ours": lambda mask: images.encode_mask(mask, classes)
    }
    for level, strategy, name in (
        (6, zlib.Z_DEFAULT_STRATEGY, "level 6"),
        (1, zlib.Z_DEFAULT_STRATEGY, "level 1"),
        (3, zlib.Z_DEFAULT_STRATEGY, "level 3"),
        (6, zlib.Z_RLE, "level 6, run lengths"),
        (1, zlib.Z_RLE, "level 1, run lengths"),
        (9, zlib.Z_DEFAULT_STRATEGY, "level 9"),
    ):
        ways[f"Pillow, {name}"] = _pillow(level, strategy)
    if cv2 := modules.get("cv2"):
        ways["OpenCV, grey"] = lambda mask: cv2.imencode(".png", mask)[1].tobytes()
    if imagecodecs := modules.get("imagecodecs"):
        ways["imagecodecs, grey"] = imagecodecs.png_encode
        ways["imagecodecs, grey, level 1"] = lambda mask: imagecodecs.png_encode(mask, level=1)
    if fpng := modules.get("fpng_py"):
        ways["fpng, RGB"] = lambda mask: _fpng(fpng, mask)
    return ways


def _pillow(level: int, strategy: int) -> Callable[[Array], bytes]:
    def encode(mask: Array) -> bytes:
        image = Image.fromarray(mask)
        image.putpalette(bytes(range(256)) * 3)
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=level, compress_type=strategy)
        return file.getvalue()

    return encode


def _fpng(fpng: Any, mask: Array) -> bytes:
    height, width = mask.shape
    pixels = np.repeat(mask[..., None], 3, axis=2).tobytes()
    encoded: bytes = fpng.fpng_encode_image_to_memory(pixels, width, height, 3)
    return encoded


def times(
    ways: dict[str, Callable[[Any], Any]], items: list[Any], repeats: int
) -> tuple[dict[str, float], dict[str, list[Any]]]:
    """Each way's median seconds for all items, and what it made of them."""
    turns: dict[str, list[float]] = {name: [0.0] * repeats for name in ways}
    made: dict[str, list[Any]] = {name: [] for name in ways}
    for repeat in range(-1, repeats):
        for item in items:
            for name, way in ways.items():
                started = time.process_time()
                result = way(item)
                seconds = time.process_time() - started
                if repeat < 0:
                    made[name].append(result)
                else:
                    turns[name][repeat] += seconds
    return {name: statistics.median(seconds) for name, seconds in turns.items()}, made


if __name__ == "__main__":
    main()
