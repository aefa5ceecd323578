from __future__ import annotations

import io
import struct
import zlib
from contextlib import suppress

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from pipelines import matlab
from pipelines.errors import ImageError
from pipelines.label_rules import LabelRule
from tests.support.published import mat

NUMBERS = ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")


@given(
    arrays(st.sampled_from([np.dtype(kind) for kind in NUMBERS]), array_shapes(min_dims=2)),
    st.booleans(),
)
def test_any_array_that_scipy_writes_is_read_as_scipy_reads_it(
    array: np.ndarray, compressed: bool
) -> None:
    data = mat(compressed, before=np.ones((3, 5)), value=array, after="text")
    found = matlab.read_value(data, ("value",))
    reference = scipy.io.loadmat(io.BytesIO(data))["value"]
    assert found.dtype == reference.dtype
    np.testing.assert_array_equal(found, reference)
    np.testing.assert_array_equal(found, array)


def test_numbers_may_be_stored_smaller_than_their_class_and_in_either_byte_order() -> None:
    """By hand, after the format's description: MATLAB keeps doubles that are whole as bytes."""
    for order, mark in (("<", b"\x00\x01IM"), (">", b"\x01\x00MI")):
        body = struct.pack(f"{order}IIII", 6, 8, 6, 0)  # flags: class double
        body += struct.pack(f"{order}IIii", 5, 8, 2, 3)  # shape 2 x 3
        body += struct.pack(f"{order}I", 1 << 16 | 1) + b"S\0\0\0"  # name, a small element
        body += struct.pack(f"{order}II", 2, 6) + bytes([1, 2, 3, 4, 5, 250]) + bytes(2)
        data = (
            b"MATLAB 5.0 MAT-file".ljust(124)
            + mark
            + struct.pack(f"{order}II", 14, len(body))
            + body
        )
        found = matlab.read_value(data, ("S",))
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, [[1, 3, 5], [2, 4, 250]])
        np.testing.assert_array_equal(found, scipy.io.loadmat(io.BytesIO(data))["S"])


@pytest.mark.parametrize("compressed", [False, True])
def test_values_are_found_by_variable_and_field_whatever_stands_beside(compressed: bool) -> None:
    inner = np.arange(12, dtype=np.int16).reshape(3, 4)
    data = mat(compressed, other="text", a={"b": {"c": inner, "d": 1}, "e": np.ones((2, 2))})
    found = matlab.read_value(data, ("a", "b", "c"))
    reference = scipy.io.loadmat(io.BytesIO(data), simplify_cells=True)["a"]
    np.testing.assert_array_equal(matlab.read_value(data, ("a", "e")), reference["e"])
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, inner)
    for path, text in [
        (("a", "b", "x"), r"a\.b\.x is wanted, but before \.x is a \(1, 1\) struct of \['c', 'd'"),
        (("other", "x"), r"before \.x is no struct"),
        (("none",), r"no variable 'none' but \['other', 'a'\]"),
    ]:
        with pytest.raises(ImageError, match=text):
            matlab.read_value(data, path)


def test_any_cut_and_any_flipped_byte_is_an_image_error_or_an_array() -> None:
    for compressed in (False, True):
        data = mat(compressed, S=np.arange(200.0).reshape(10, 20))
        for length in range(0, len(data), 7):
            with pytest.raises(ImageError):
                matlab.read_value(data[:length], ("S",))
        for at in range(128, len(data)):
            damaged = bytearray(data)
            damaged[at] ^= 0x41
            # scipy 1.17 ends the process at byte 177 of the one that is not compressed.
            with suppress(ImageError):
                assert isinstance(matlab.read_value(bytes(damaged), ("S",)), np.ndarray)


def test_a_small_file_that_unpacks_to_much_is_refused_before_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(matlab, "MAX_BYTES", 1 << 20)
    header = mat(False, S=np.ones((2, 2)))[:128]
    bomb = zlib.compress(bytes(50 << 20))
    data = header + struct.pack("<II", 15, len(bomb)) + bomb
    assert len(data) < 60_000
    with pytest.raises(ImageError, match="unpacks to over 1048576 bytes") as caught:
        matlab.read_value(data, ("S",))
    assert caught.value.kind == "too_large"


def test_a_rule_survives_json_and_takes_any_number_type() -> None:
    rule = LabelRule(member=("S",), first=-1, table=bytes([255, 255, 0, 1, 2]))
    assert LabelRule.from_json(rule.to_json()) == rule
    raw = np.array([[-1, 0], [1, 3]])
    for kind in (np.int8, np.int64, np.float32, np.float64):
        np.testing.assert_array_equal(rule.ids(raw.astype(kind), "k"), [[255, 255], [0, 2]])
    np.testing.assert_array_equal(rule.ids(np.array([[True]]), "k"), [[0]])
    np.testing.assert_array_equal(rule.ids(np.array([[3]], np.uint64), "k"), [[2]])
