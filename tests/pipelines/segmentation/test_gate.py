"""A run whose masks are not fit to be read is found out by counts alone."""

from __future__ import annotations

import pytest

from pipelines.masks.generation import PartName
from pipelines.masks.snapshot import SnapshotPart
from pipelines.segmentation.gate import faults
from pipelines.segmentation.settings import SegmentConfig


def _part(rows, **counts):
    name = PartName("0" * 16, "0" * 16)
    return SnapshotPart(name=name, etag="e", size=1, sha256="", rows=rows, **counts)


def _config(**limits):
    return SegmentConfig(checkpoint="c", output="o", **limits)


def test_shares_are_of_all_rows_of_the_run_and_the_limit_itself_is_allowed():
    made = [_part(90, errors={"truncated": 4}), _part(10, errors={"empty": 6})]
    assert faults(made, _config(max_error_rate=0.1)) == []
    (line,) = faults(made, _config(max_error_rate=0.099))
    assert "10 error rows of 100 (10.0%" in line
    assert "6 empty, 4 truncated" in line
    assert "--max-error-rate" in line


def test_masks_of_one_class_count_only_where_a_limit_is_given():
    made = [_part(4, constant=3)]
    assert faults(made, _config()) == []
    (line,) = faults(made, _config(max_constant_rate=0.5))
    assert "3 masks of one class of 4 (75.0%)" in line


@pytest.mark.parametrize(("broken", "fails"), [(1, False), (2, True)])
def test_scores_that_are_no_numbers_fail_the_run_by_themselves(broken, fails):
    made = [_part(100, errors={"not_finite": broken})]
    assert bool(faults(made, _config())) == fails


def test_a_run_that_made_nothing_has_no_faults():
    assert faults([], _config(max_error_rate=0, max_constant_rate=0)) == []


def test_rows_of_images_that_were_known_to_be_gone_are_not_held_against_it():
    made = [_part(10, errors={"missing": 3, "empty": 1})]
    assert faults(made, _config(max_error_rate=0.1), expected={"missing": 5}) == []
    assert len(faults(made, _config(max_error_rate=0.1), expected={"missing": 2})) == 1
