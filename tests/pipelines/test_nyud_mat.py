"""NYUDv2's labelled file: HDF5 of 3 GB that is read in parts."""

from __future__ import annotations

import gc
import io
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipelines import nyu_records, storage
from pipelines.datasets import nyud_mat
from pipelines.errors import ChangedError, InputError, NotFoundError, StoreError
from pipelines.sources import open_source
from pipelines.units import read_unit
from tests.support import published
from tests.support.proxy import FaultProxy
from tests.support.round_trip import check, opened, prepared
from tests.support.seaweed import Seaweed


def test_nyud_mat_without_a_split_or_the_mapping_says_what_is_needed(tmp_path: Path) -> None:
    expected = published.nyud_mat(tmp_path)
    with pytest.raises(InputError, match=r"splits \['train', 'test'\]; choose one, not 'val'"):
        open_source(str(tmp_path), split="val")
    (tmp_path / "splits.mat").write_bytes(published.mat(False, testNdxs=np.array([[1], [9]])))
    with pytest.raises(InputError, match=r"splits\.mat: testNdxs .* to 9; .*images 1 to 4"):
        opened(tmp_path, expected)
    thirteen = published.mat(False, mapClass=np.arange(1, 14))
    (tmp_path / "classMapping40.mat").write_bytes(thirteen)
    with pytest.raises(InputError, match="from 1 to 13; wanted are the classes 1 to 40"):
        opened(tmp_path, expected)
    (tmp_path / "classMapping40.mat").unlink()
    with pytest.raises(NotFoundError, match=r"classMapping40\.mat does not exist; .*Gupta et al"):
        opened(tmp_path, expected)


def test_an_hdf5_file_that_points_elsewhere_or_is_damaged_is_refused(tmp_path: Path) -> None:
    expected = published.nyud_mat(tmp_path)
    path = tmp_path / "nyu_depth_v2_labeled.mat"
    whole = path.read_bytes()
    for change in ("external storage", "external link", "cut", "shape"):
        path.write_bytes(whole[:-9000] if change == "cut" else whole)
        if change != "cut":
            with h5py.File(path, "r+") as file:
                shape = file["labels"].shape
                del file["labels"]
                if change == "external storage":
                    secret = [("/etc/passwd", 0, 2 * int(np.prod(shape)))]
                    file.create_dataset("labels", shape, np.uint16, external=secret)
                elif change == "external link":
                    file["labels"] = h5py.ExternalLink("other.mat", "labels")
                else:
                    file["labels"] = np.zeros((4, 3, 3), np.uint16)
        with pytest.raises(InputError, match=r"labeled\.mat is no labelled file of NYUDv2") as e:
            prepared(opened(tmp_path, expected), tmp_path / f"out-{change}")
        assert "\n" not in str(e.value)


@pytest.mark.s3
def test_one_image_of_the_large_nyud_file_is_fetched_alone(
    s3: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = published.nyud_mat(tmp_path)
    root = s3.uri("nyu")
    for path in tmp_path.iterdir():
        data = path.read_bytes()
        if path.name.startswith("nyu_depth"):
            data += bytes(30 << 20)  # stands for the other 1,400 images
        storage.create(storage.join(root, path.name), data)
    with FaultProxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        source = open_source(root, split="test", unit_records=1)
        check(source, expected)
        assert proxy.sent.total() < 15 << 20
    assert [unit.records for unit in source.units] == [1, 1]


@pytest.mark.s3
def test_what_the_store_says_about_the_large_nyud_file_comes_through_hdf5(
    s3: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.nyud_mat(tmp_path)
    root = s3.uri("nyu")
    for path in tmp_path.iterdir():
        storage.create(storage.join(root, path.name), path.read_bytes())
    (unit,) = open_source(root, split="test").units
    storage.replace(unit.objects[0].uri, (tmp_path / nyud_mat.FILE).read_bytes() + b"more")
    with pytest.raises(ChangedError, match=r"labeled\.mat"):
        read_unit(unit)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreError, match="access denied"):
        read_unit(unit)


def test_a_thread_of_the_store_that_would_collect_garbage_of_h5py_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published.nyud_mat(tmp_path)
    path = tmp_path / nyud_mat.FILE
    file = h5py.File(path)
    garbage: list[Any] = [file["images"], file]
    garbage.append(garbage)  # a circle, which only a collection frees
    del file, garbage
    stuck = []

    class Reader(io.FileIO):
        def readinto(self, buffer: Any) -> int | None:
            def collect_as_python_would() -> None:
                kept = [[] for _ in range(200_000)]  # type: ignore[var-annotated]
                del kept

            thread = threading.Thread(target=collect_as_python_would, daemon=True)
            thread.start()
            thread.join(10)
            stuck.append(thread.is_alive())
            return super().readinto(buffer)

    monkeypatch.setattr(storage, "open_ranged", lambda _ref: Reader(path))
    ref = storage.ObjectRef(str(path), "", path.stat().st_size)
    assert nyu_records.count_images(ref) == 4
    assert stuck
    assert not any(stuck)
    assert gc.isenabled()
