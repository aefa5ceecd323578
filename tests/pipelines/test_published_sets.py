"""Every published data set, in its exact form on disk, label by label through shards and back."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipelines import images, storage
from pipelines.datasets.layouts import READERS
from pipelines.errors import InputError, NotFoundError
from pipelines.label_index import index_labels
from pipelines.matlab import read_value
from pipelines.parquet_records import read_footer
from pipelines.sources import open_source
from pipelines.units import Unit, read_labels, read_unit
from tests.support import made, published
from tests.support.published import Expected
from tests.support.round_trip import check, opened, prepared


def test_every_published_layout_is_tested_here() -> None:
    assert set(published.SETS) == set(READERS) - {"archive", "pairs"}


@pytest.mark.parametrize("name", published.SETS)
def test_a_set_is_the_same_pixel_by_pixel_from_its_files_and_from_shards(
    name: str, tmp_path: Path
) -> None:
    expected = published.SETS[name](tmp_path / "in")
    source = opened(tmp_path / "in", expected, unit_records=1)
    assert (source.layout, source.records) == (expected.layout, 2)
    check(source, expected)
    shards = prepared(source, tmp_path / "out")
    assert (shards.layout, shards.planes) == ("shards", source.planes)
    assert (shards.classes, shards.tasks) == (source.classes, source.tasks)
    check(shards, expected)
    for stored in (source, shards):
        assert list(index_labels(stored)) == list(expected.labels)
        for key, place in index_labels(stored).items():
            label = read_labels(stored.units[place.unit])[place.row]
            assert label.data is not None
            np.testing.assert_array_equal(label.rule.decode(label.data, key), expected.labels[key])


@pytest.mark.parametrize("name", published.SETS)
def test_units_are_small_and_survive_json(name: str, tmp_path: Path) -> None:
    (unit,) = opened(tmp_path, published.SETS[name](tmp_path)).units
    text = unit.to_json()
    assert Unit.from_json(text) == unit
    assert len(text) < 3500
    other = json.loads(text)
    for _, rule in other["rules"]:
        rule[1] += 1
    changed = Unit.from_json(json.dumps(other))
    assert (changed.identity != unit.identity) == bool(unit.rules)


def test_classes_are_those_that_the_sets_publish(tmp_path: Path) -> None:
    classes = {}
    for name, make in published.SETS.items():
        source = opened(tmp_path / name, make(tmp_path / name))
        assert source.classes is not None
        classes[name] = source.classes.names
        assert source.classes.void_id == (11 if name == "camvid" else 255)
        if name == "siftflow":
            assert source.tasks["geo"].names == ("sky", "horizontal", "vertical")
    counts = {name: len(names) for name, names in classes.items()}
    assert [counts[name] for name in ("voc", "sbd", "camvid")] == [21, 21, 11]
    assert [counts[name] for name in ("nyud", "nyud-mat", "siftflow")] == [40, 40, 33]
    assert [counts[name] for name in ("context-59", "context-60", "ade20k")] == [59, 60, 150]
    assert [classes["siftflow"][index] for index in (8, 10, 15)] == ["cow", "desert", "moon"]
    assert (classes["nyud"][0], classes["nyud"][39]) == ("wall", "otherprop")
    assert classes["context-60"] == ("background", *classes["context-59"])
    assert classes["ade20k"][149] == "thing 150, synonym"


def test_planes_travel_only_where_they_are_wanted(tmp_path: Path) -> None:
    expected = published.nyud(tmp_path / "in")
    source = opened(tmp_path / "in", expected)
    shards = prepared(source, tmp_path / "out")
    for unit in (source.units[0], shards.units[0]):
        assert read_unit(unit)[0].planes == {}
        assert set(read_unit(unit, planes=("hha",))[0].planes) == {"hha"}
        assert set(read_unit(unit, planes=None)[0].planes) == {"depth", "hha"}
        with pytest.raises(InputError, match="'geo', which is wanted"):
            read_unit(unit, planes=("geo",))


def test_shards_keep_planes_as_they_are_and_labels_as_palette_png(tmp_path: Path) -> None:
    expected = published.siftflow(tmp_path / "in")
    source = opened(tmp_path / "in", expected)
    (unit, _) = prepared(source, tmp_path / "out").units
    footer = read_footer(unit.objects[0])
    assert (footer.planes, dict(footer.tasks)) == (("geo",), dict(source.tasks))
    table = pq.read_table(io.BytesIO(storage.read_bytes(unit.objects[0].uri)))
    assert table.column_names[-2:] == ["label", "geo"]
    for column in ("label", "geo"):
        assert Image.open(io.BytesIO(table[column][0].as_py()["bytes"])).mode == "P"
    record = read_unit(unit, planes=None)[0]
    assert record.rules == {}
    np.testing.assert_array_equal(
        images.decode_label(record.planes["geo"]), expected.planes[record.key]["geo"]
    )


def test_exclude_leaves_out_what_stands_in_lists_and_counts_it(tmp_path: Path) -> None:
    """The reference's seg11valid: VOC's val without SBD's train, by a set difference."""
    voc = [f"2008_{number:06d}" for number in range(0, 60, 2)]
    sbd = [f"2008_{number:06d}" for number in range(0, 60, 3)]
    files = {"ImageSets/Segmentation/val.txt": "\n".join(voc).encode()}
    for name in voc:
        files[f"JPEGImages/{name}.jpg"] = b"x"
        files[f"SegmentationClass/{name}.png"] = b"x"
    made.fill(tmp_path / "voc", files)
    made.fill(tmp_path, {"train.txt": ("\r\n".join(sbd) + "\n").encode(), "all.txt": b""})
    lists = [str(tmp_path / "train.txt")]
    source = open_source(str(tmp_path / "voc"), exclude=lists)
    keys = [key for unit in source.units for key in unit.keys]
    assert keys == [name for name in voc if name not in set(sbd)]
    assert (source.excluded, source.records) == (10, 20)
    (tmp_path / "all.txt").write_text("\n".join(voc))
    with pytest.raises(InputError, match=r"every image stands in .*all\.txt; none is left"):
        open_source(str(tmp_path / "voc"), exclude=[*lists, str(tmp_path / "all.txt")])
    with pytest.raises(NotFoundError, match=r"absent\.txt does not exist; it was named with excl"):
        open_source(str(tmp_path / "voc"), exclude=[str(tmp_path / "absent.txt")])
    made.fill(tmp_path / "tars", {"a.tar": made.tar({})})
    with pytest.raises(InputError, match="only images in a list can be left out"):
        open_source(str(tmp_path / "tars"), exclude=lists)


@pytest.mark.shared_data
def test_real_images_of_ade20k_and_nyudv2_in_their_layouts(
    shared_data: Path, tmp_path: Path
) -> None:
    """The samples come without the folders of their sets; their files are put where they belong."""
    ade, sample = tmp_path / "ade", shared_data / "ade20k_sample"
    files = {"objectInfo150.txt": (sample / "objectInfo150.txt").read_bytes()}
    for folder in ("images", "annotations"):
        for path in (sample / folder).iterdir():
            files[f"{folder}/validation/{path.name}"] = path.read_bytes()
    source = open_source(str(made.fill(ade, files)))
    assert source.classes is not None
    assert source.classes.names[:2] == ("wall", "building, edifice")
    expected = Expected("ade20k", None)
    for path in sorted((sample / "images").iterdir()):
        expected.images[path.stem] = np.asarray(Image.open(path))
        raw = np.asarray(Image.open(sample / f"annotations/{path.stem}.png"))
        expected.labels[path.stem] = raw - np.uint8(1)
    check(prepared(source, tmp_path / "ade-shards"), expected)

    nyu, sample = tmp_path / "nyu", shared_data / "nyudv2_sample"
    files, expected = {}, Expected("nyud", "test")
    for path in sorted((sample / "image").iterdir()):
        key = path.stem.removeprefix("img_")
        raw = np.asarray(Image.open(sample / f"label40/{path.name}"))
        depth = published_depth(sample / f"mat/{key}.mat")
        files |= {
            f"data/images/{path.name}": path.read_bytes(),
            f"data/depth/{path.name}": made.png(depth),
            f"segmentation/{path.stem}.mat": published.mat(True, segmentation=raw),
        }
        expected.images[key] = np.asarray(Image.open(path))
        expected.labels[key] = raw - np.uint8(1)
        expected.planes[key] = {"depth": depth}
        assert 7.0 < np.log(depth[depth > 0]).mean() < 8.7  # the paper's mean is 7.844: millimetres
    files["test.txt"] = "\n".join(expected.images).encode()
    source = open_source(str(made.fill(nyu, files)), split="test")
    check(prepared(source, tmp_path / "nyu-shards"), expected)


def published_depth(path: Path) -> np.ndarray:
    """The depth of a sample's struct ``datamat``, through the project's own MATLAB reader."""
    return read_value(path.read_bytes(), ("datamat", "depth")).astype(np.uint16)
