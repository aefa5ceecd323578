"""What is said of published data sets that are not as they should be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import InputError, LabelError, NotFoundError
from pipelines.sources import open_source
from tests.support import made, published
from tests.support.round_trip import opened, prepared


@pytest.mark.parametrize("name", published.SETS)
def test_a_missing_file_is_named_with_its_place_and_the_layout(name: str, tmp_path: Path) -> None:
    expected = published.SETS[name](tmp_path)
    missing = tmp_path / expected.missing
    missing.unlink()
    with pytest.raises(NotFoundError) as caught:
        opened(tmp_path, expected)
    text = str(caught.value)
    assert missing.with_suffix("").as_posix() in text
    assert f"layout {name} is" in text or "layouts context-59 and context-60 are" in text
    assert "\n" not in text


@pytest.mark.parametrize("name", published.SETS)
def test_another_folder_is_told_what_the_layout_should_be(name: str, tmp_path: Path) -> None:
    made.fill(tmp_path, {"notes.txt": b"", "photo.jpg": made.jpg(made.picture(0))})
    with pytest.raises(NotFoundError, match=f"{name}.* (is|are) ") as caught:
        open_source(str(tmp_path), layout=name, split="train")  # type: ignore[arg-type]
    assert f"file://{tmp_path}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "file", "variable", "raw", "message"),
    [
        ("sbd", "benchmark_RELEASE/dataset/cls/2008_1.mat", "GTcls", 21, "21 .1 pixels.*0 to 20"),
        ("nyud", "segmentation/img_5010.mat", "segmentation", 41, "41 .1 pixels.*from 0 to 40"),
        ("nyud", "segmentation/img_5010.mat", "segmentation", 2.5, "2.5 .1 pixels"),
        ("siftflow", f"SemanticLabels/{published.SCENES}/street_urb1.mat", "S", -1, "-1 .*0 to 33"),
        ("siftflow", f"GeoLabels/{published.SCENES}/street_urb1.mat", "S", 4, "4 .*-1 to 3"),
        ("context-60", "trainval/2010_1.mat", "LabelMap", 460, "460 .*0 to 459"),
    ],
)
def test_a_value_without_explanation_names_image_and_value(
    tmp_path: Path, name: str, file: str, variable: str, raw: float, message: str
) -> None:
    expected = published.SETS[name](tmp_path / "in")
    content = np.ones(published.SHAPE)
    content[3, 4] = raw
    value = {"Segmentation": content} if variable == "GTcls" else content
    (tmp_path / "in" / file).write_bytes(published.mat(True, **{variable: value}))
    key = list(expected.images)[-1]
    with pytest.raises(LabelError, match=rf"image {key} .*holds {message}"):
        prepared(opened(tmp_path / "in", expected), tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no MATLAB 5 file"),
        (b"MATLAB 7.3 MAT-file" + bytes(200), "7.3 file .HDF5.; save it in MATLAB with '-v7'"),
        (published.mat(True, T=np.ones((3, 3))), r"no variable 'segmentation' but \['T'\]"),
        (published.mat(True, segmentation=np.ones((3, 3)))[:-9], "an element ends at byte"),
        (published.mat(True, segmentation="wall"), "segmentation is no matrix of real numbers"),
        (
            published.mat(True, segmentation=np.ones((3, 3, 2))),
            "wanted is one number for each pixel",
        ),
        (published.mat(True, segmentation=np.ones((3, 3))), "is 3x3 pixels .*30x41"),
    ],
)
def test_a_label_file_that_is_none_names_its_image(
    tmp_path: Path, content: bytes, message: str
) -> None:
    expected = published.nyud(tmp_path / "in")
    (tmp_path / "in/segmentation/img_5001.mat").write_bytes(content)
    with pytest.raises(LabelError, match=rf"image 5001 .*{message}"):
        prepared(opened(tmp_path / "in", expected), tmp_path / "out")


@pytest.mark.parametrize(
    ("plane", "content", "message"),
    [
        (
            "depth",
            made.png(np.zeros(published.SHAPE, np.uint8)),
            "16-bit grey PNG; .*grey of 8 bits",
        ),
        ("depth", made.png(np.zeros((8, 9), np.uint16)), "its depth is 8x9 .*the image 30x41"),
        ("hha", made.png(np.zeros(published.SHAPE, np.uint8)), "8-bit PNG of three channels"),
        ("hha", made.jpg(made.picture(0, *published.SHAPE)), r"cannot be read \(not_an_image\)"),
    ],
)
def test_a_plane_of_another_kind_or_size_names_its_image(
    tmp_path: Path, plane: str, content: bytes, message: str
) -> None:
    expected = published.nyud(tmp_path / "in")
    (tmp_path / f"in/data/{plane}/img_5010.png").write_bytes(content)
    with pytest.raises(InputError, match=rf"image 5010 .*{message}"):
        prepared(opened(tmp_path / "in", expected), tmp_path / "out")


def test_context_asks_which_of_its_two_tasks_is_meant(tmp_path: Path) -> None:
    published.SETS["context-59"](tmp_path)
    with pytest.raises(InputError, match=r"name layout context-59, .*void, or context-60"):
        open_source(str(tmp_path), split="val")


def test_context_lists_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    expected = published.SETS["context-59"](tmp_path)
    short = (tmp_path / "59_labels.txt").read_text().splitlines()[:-1]
    (tmp_path / "59_labels.txt").write_text("\n".join(short))
    with pytest.raises(InputError, match=r"59_labels\.txt names 58 classes; wanted are 59"):
        opened(tmp_path, expected)
    (tmp_path / "59_labels.txt").write_text("\n".join([*short, "59: unicorn"]))
    with pytest.raises(InputError, match=r"labels\.txt has no label 'unicorn'"):
        opened(tmp_path, expected)
    (tmp_path / "59_labels.txt").write_text("\n".join(short[1:]))
    with pytest.raises(InputError, match="where '1: name' is wanted"):
        opened(tmp_path, expected)


def test_ade20k_without_its_names_says_numbers(tmp_path: Path) -> None:
    expected = published.ade20k(tmp_path)
    names = tmp_path / "ADEChallengeData2016/objectInfo150.txt"
    names.unlink()
    classes = opened(tmp_path, expected).classes
    assert classes is not None
    assert (classes.names[0], classes.names[149]) == ("class 1", "class 150")
    names.write_text("Idx\tName\n1\twall\n")
    with pytest.raises(InputError, match="does not name classes 1 to 150"):
        opened(tmp_path, expected)
