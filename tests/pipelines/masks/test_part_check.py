"""A part that is not what its snapshot, its footer, its plan or its own rows say is named."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from pipelines import images, storage
from pipelines.errors import StoreError
from pipelines.masks.part_check import Budget
from pipelines.masks.verify import verify
from tests.support import outputs
from tests.support.made import CLASSES

NAMES = "abcdefgh"


@pytest.fixture
def made(tmp_path):
    """A finished night: its source, its output and that as a folder."""
    source = outputs.archive(tmp_path / "in", NAMES)
    output = (tmp_path / "out").as_uri()
    outputs.night(output, source)
    return source, output, tmp_path / "out"


def _another_mask(rows):
    ids = np.full((4, 5), 1, np.uint8)
    return outputs.set_first(mask={"bytes": images.encode_mask(ids, CLASSES), "path": ""})(rows)


def _mask_of_another_size(rows):
    ids = np.zeros((5, 4), np.uint8)
    pixels = [20] + [0] * (len(CLASSES) - 1)
    mask = {"bytes": images.encode_mask(ids, CLASSES), "path": ""}
    return outputs.set_first(mask=mask, class_pixels=pixels)(rows)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (outputs.set_first(record=1), "record 1 stands 2 times"),
        (outputs.set_first(record=7), "there is no [0]"),
        (lambda rows: rows[:-1], "its plan says 3"),
        (outputs.set_first(unit="0" * 16), "it is of unit 0000"),
        (outputs.set_first(model="another"), "and model another"),
        (outputs.set_first(status="done"), "its status is 'done'"),
        (outputs.set_first(status="error", error_kind="empty"), "does not fit its mask"),
        (outputs.set_first(mask=None), "does not fit its mask"),
        (outputs.set_first(class_pixels=None), "does not fit its mask"),
        (outputs.set_first(error_kind="empty"), "with the error kind 'empty'"),
        (outputs.set_first(height=5), "of 5x5 pixels"),
        (outputs.set_first(mask={"bytes": b"no png", "path": ""}), "cannot be decoded"),
        (_another_mask, "pixels of class 0"),
        (_mask_of_another_size, "its mask is 5x4, not 4x5 pixels"),
    ],
)
def test_a_row_that_is_not_right_is_named_though_every_checksum_is(tmp_path, change, text):
    source = outputs.archive(tmp_path / "in", "abc")
    output = (tmp_path / "out").as_uri()
    outputs.night(output, source, change=change)
    verdict = verify(output, deep=True, progress=lambda _: None)
    assert set(+verdict.counts) <= {"damaged", "doubled"}
    assert any(text in problem.text for problem in verdict.problems), verdict.problems


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"rows": 4}, "its snapshot says 4"),
        ({"errors": {"empty": 1}}, "the snapshot says"),
        ({"transient": 1}, "the snapshot says"),
        ({"class_pixels": (1, 2, 3)}, "the snapshot says"),
        ({"class_pixels": ()}, "cannot be read"),
        ({"sha256": "0" * 64}, "SHA-256"),
    ],
)
def test_a_snapshot_that_says_something_else_than_its_parts_is_named(made, change, text):
    _, output, _ = made
    done = outputs.newest(output)
    first = replace(done.parts[0], **change)
    outputs.put_snapshot(output, replace(done, parts=(first, *done.parts[1:])))
    verdict = verify(output, progress=lambda _: None)
    assert +verdict.counts == Counter(damaged=1)
    assert text in verdict.problems[0].text


def test_a_part_under_the_name_of_another_is_not_what_its_footer_says(made):
    _, output, folder = made
    done = outputs.newest(output)
    first, second, third = done.parts
    data = (folder / done.file(second)).read_bytes()
    (folder / done.file(first)).write_bytes(data)
    said = replace(second, name=first.name)
    outputs.put_snapshot(output, replace(done, parts=(said, second, third)))
    texts = [problem.text for problem in verify(output, progress=lambda _: None).problems]
    assert any("its footer says unit" in text for text in texts)
    assert any("does not give its name" in text for text in texts)


def test_a_part_that_a_store_cannot_read_is_damaged_but_a_store_that_is_down_is_no_verdict(
    made, monkeypatch
):
    _, output, folder = made
    bad = storage.parse_uri(str(next(folder.glob("data/*/*.parquet"))))
    real = storage.read_bytes

    def read(uri, **options):
        if uri == bad:
            raise StoreError(f"{uri}: its bytes never agree with their checksum", transient=True)
        return real(uri, **options)

    monkeypatch.setattr(storage, "read_bytes", read)
    assert outputs.wrong(output) == {"damaged": 1}

    def down(uri):
        raise StoreError("nobody answers")

    monkeypatch.setattr(storage, "stat", down)
    with pytest.raises(StoreError, match="nobody answers"):
        outputs.wrong(output)


def test_threads_never_hold_more_bytes_than_allowed():
    budget, lock = Budget(100), threading.Lock()
    holding, most = [0], [0]

    def work(size):
        with budget.hold(size):
            with lock:
                holding[0] += min(size, 100)
                most[0] = max(most[0], holding[0])
            time.sleep(0.001)
            with lock:
                holding[0] -= min(size, 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [30, 70, 10, 400, 50, 60] * 5))
    assert (holding[0], most[0]) == (0, 100)
