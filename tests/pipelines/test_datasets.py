from __future__ import annotations

import json
from pathlib import Path

import pytest

from fcn_model.classes import voc_palette
from pipelines import storage
from pipelines.datasets import camvid, voc
from pipelines.errors import InputError, NotFoundError
from pipelines.sources import Source, open_source
from tests.support import made


def opened(root: Path, **options: object) -> Source:
    return open_source(str(root), **options)  # type: ignore[arg-type]


def keys(source: Source) -> list[str]:
    return [key for unit in source.units for key in unit.keys]


def labels(source: Source) -> list[str]:
    """The labels' paths below the source."""
    return [
        storage.relative(ref.uri, source.uri) for unit in source.units for ref in unit.labels if ref
    ]


def test_voc_has_the_published_colours_and_camvid_those_of_its_files() -> None:
    assert len(voc.CLASSES) == 21
    assert voc.CLASSES.palette == voc_palette(21)
    assert (len(camvid.CLASSES), camvid.CLASSES.void_id) == (11, 11)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("folder", "split", "layout", "count"),
    [
        ("camvid", "train", "camvid", 367),
        ("camvid", "val", "camvid", 101),
        ("voc2012_subset", "train", "voc", 350),
        ("voc2012_subset", "val", "voc", 125),
    ],
)
def test_real_data_sets_are_recognised_and_complete(
    shared_data: Path, folder: str, split: str, layout: str, count: int
) -> None:
    root = shared_data / folder
    source = opened(root, split=split)
    assert (source.layout, source.records) == (layout, count)
    assert len(set(keys(source))) == len(labels(source)) == count
    meta = json.loads((root / "meta.json").read_text())
    assert source.classes is not None
    assert source.classes.names == tuple(meta["classes"])
    assert source.classes.void_id == meta["ignore_label"]
    colors = [list(color) for color in source.classes.palette]
    assert colors == meta["palette_rgb"][: len(colors)]


def voc_tree(root: Path) -> Path:
    files = {"ImageSets/Segmentation/train.txt": b"2007_b\n2007_a \n\n"}
    for name in ("2007_a", "2007_b", "2007_c"):
        files[f"JPEGImages/{name}.jpg"] = made.jpg(made.picture(0))
        files[f"SegmentationClass/{name}.png"] = made.label_png(0)
    return made.fill(root, files)


def test_voc_follows_its_list(tmp_path: Path) -> None:
    source = opened(voc_tree(tmp_path))
    assert source.layout == "voc"
    assert keys(source) == ["2007_b", "2007_a"]
    assert labels(source) == ["SegmentationClass/2007_b.png", "SegmentationClass/2007_a.png"]
    assert source.classes == voc.CLASSES


def test_another_set_in_voc_layout_brings_its_own_classes(tmp_path: Path) -> None:
    made.fill(voc_tree(tmp_path), {"classes.json": json.dumps(made.CLASSES.to_dict()).encode()})
    assert opened(tmp_path).classes == made.CLASSES


def test_camvid_lines_may_be_relative_or_as_published(tmp_path: Path) -> None:
    files = {
        "train.txt": b"train/a.png trainannot/a.png\n"
        b"/SegNet/CamVid/train/b.png /SegNet/CamVid/trainannot/b.png\n"
    }
    for name in "ab":
        files[f"train/{name}.png"] = made.png(made.picture(0))
        files[f"trainannot/{name}.png"] = made.label_png(0)
    source = opened(made.fill(tmp_path, files))
    assert source.layout == "camvid"
    assert keys(source) == ["train/a", "train/b"]
    assert labels(source) == ["trainannot/a.png", "trainannot/b.png"]


def test_pairs_match_by_name_whatever_the_suffix(tmp_path: Path) -> None:
    root = made.pairs(tmp_path, 3)
    made.fill(root, {"images/deep/x.y.webp": b"", "labels/deep/x.y.png": b""})
    source = opened(root)
    assert source.layout == "pairs"
    assert keys(source) == ["000", "001", "002", "deep/x.y"]
    assert labels(source)[-1] == "labels/deep/x.y.png"
    assert source.classes == made.CLASSES


def test_pairs_take_a_split_and_plain_class_names(tmp_path: Path) -> None:
    root = made.pairs(tmp_path, 3)
    (root / "classes.json").unlink()
    made.fill(root, {"classes.txt": b"sky\nroad\n", "val.txt": b"002\n000\n"})
    source = opened(root, split="val")
    assert keys(source) == ["002", "000"]
    assert source.classes is not None
    assert (source.classes.names, source.classes.void_id) == (("sky", "road"), 255)


def test_an_archive_is_every_image_by_its_path(tmp_path: Path) -> None:
    names = ["b/_DSC01.JPG", "a.png", "a.jpg", "b/c/d.webp", "odd.avif"]
    others = ["notes.txt", ".cache/x.jpg", "_thumbs/x.jpg", "b/.x.jpg", "noending"]
    source = opened(made.fill(tmp_path, dict.fromkeys(names + others, b"x")))
    assert source.layout == "archive"
    assert source.classes is None
    assert keys(source) == sorted(names)
    assert labels(source) == []


@pytest.mark.parametrize(
    ("change", "split", "error", "message"),
    [
        (
            "-JPEGImages/2007_a.jpg",
            None,
            NotFoundError,
            r"no image .*2007_a\.\*; .*train\.txt lists",
        ),
        ("-SegmentationClass/2007_b.png", None, NotFoundError, r"SegmentationClass/2007_b\.\*"),
        ("+JPEGImages/2007_a.png", None, InputError, r"but there are .*2007_a\.jpg.*2007_a\.png"),
        ("+ImageSets/Segmentation/val.txt", None, InputError, r"the splits \['train', 'val'\]"),
        ("+ImageSets/Segmentation/val.txt", "val", InputError, r"val\.txt names no image"),
        ("", "test", NotFoundError, r"test\.txt does not exist; the splits here are \['train'\]"),
        ("+classes.json", None, InputError, r"classes\.json is no class list"),
    ],
)
def test_a_wrong_layout_says_what_is_missing_where(
    tmp_path: Path, change: str, split: str | None, error: type[Exception], message: str
) -> None:
    root = voc_tree(tmp_path)
    if change.startswith("+"):
        made.fill(root, {change[1:]: b""})
    elif change:
        (root / change[1:]).unlink()
    with pytest.raises(error, match=message) as caught:
        opened(root, layout="voc", split=split)
    assert "\n" not in str(caught.value)


def test_pairs_without_partner_or_classes_are_refused(tmp_path: Path) -> None:
    root = made.pairs(tmp_path, 2)
    made.fill(root, {"labels/extra.png": b""})
    with pytest.raises(NotFoundError, match=r"label labels/extra\.\* has no image"):
        opened(root)
    (root / "labels/extra.png").unlink()
    (root / "labels/001.png").unlink()
    with pytest.raises(
        NotFoundError,
        match=r"^there is no label .*labels/001\.\*; .*labels/NAME\.png.* endings .*jpg, .*png, .*",
    ):
        opened(root)
    made.fill(root, {"labels/001.png": b""})
    (root / "classes.json").unlink()
    with pytest.raises(NotFoundError, match=r"classes\.txt does not exist; or classes\.json"):
        opened(root)


def test_a_camvid_line_that_is_not_two_paths_is_named(tmp_path: Path) -> None:
    root = made.fill(tmp_path, {"train.txt": b"\ntrain/a.png\n", "trainannot/a.png": b""})
    with pytest.raises(InputError, match=r"train\.txt, line 1: 'train/a\.png'; wanted two paths"):
        opened(root)


def test_a_key_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    root = voc_tree(tmp_path)
    made.fill(root, {"ImageSets/Segmentation/train.txt": b"2007_a\n2007_a\n"})
    with pytest.raises(InputError, match="names '2007_a' twice"):
        opened(root)
