from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fcn_model.caffemodel import read_caffemodel
from fcn_model.errors import WeightsError
from fcn_model.weights import read_file
from tests.support.caffemodels import blob, caffemodel, field, layer

RNG = np.random.default_rng(0)
ARRAYS = {
    "conv1/7x7_s2.weight": RNG.normal(size=(4, 3, 7, 7)).astype(np.float32),
    "conv1/7x7_s2.bias": RNG.normal(size=4).astype(np.float32),
    "fc8.weight": RNG.normal(size=(5, 12)).astype(np.float32),
    "fc8.bias": RNG.normal(size=5).astype(np.float32),
    "upscore.weight": RNG.normal(size=(5, 5, 4, 4)).astype(np.float32),
}
ONE = np.ones(1, np.float32)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", ["packed", "unpacked", "double"])
def test_both_forms_of_file_give_the_arrays_that_were_written(legacy: bool, kind: str) -> None:
    net, found = read_caffemodel(caffemodel(ARRAYS, net="CaffeNet", legacy=legacy, kind=kind))
    assert net == "CaffeNet"
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == np.float32
        axes = (1,) * (4 - array.ndim) if legacy else ()
        np.testing.assert_array_equal(found[name], array.reshape(axes + array.shape))


def test_a_file_is_read_by_its_suffix_with_the_name_of_its_net() -> None:
    file = read_file(caffemodel(ARRAYS, net="VGG"), "s3://b/voc-fcn32s.caffemodel")
    assert file.net == "VGG"
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(file.tensors[name].numpy(), array)


def test_a_third_blob_has_a_name_too() -> None:
    blobs = [blob(ONE), blob(ONE), blob(ONE)]
    assert list(read_caffemodel(layer("bn", blobs))[1]) == ["bn.weight", "bn.bias", "bn.blob2"]


def shaped(*dims: int) -> bytes:
    """A blob that has one value, whatever it says."""
    return layer("c", [blob(ONE) + field(7, b"".join(field(1, dim) for dim in dims))])


ABSURD = {
    "text": (b'name: "CaffeNet"\nlayer { }', "no protobuf message"),
    "cut": (caffemodel(ARRAYS)[:-9], "no protobuf message"),
    "empty": (b"", "none of its layers holds a blob"),
    "no blobs": (layer("relu", []), "none of its layers holds a blob"),
    "first format": (field(2, field(1, field(1, b"conv"))), "upgrade_net_proto_binary"),
    "twice": (layer("a", [blob(ONE)]) * 2, "two of its layers with blobs are called 'a'"),
    "too many dims": (shaped(*[1] * 99), r"c\.weight is said to be of shape"),
    "negative": (shaped(-1, -1), r"c\.weight is said to be of shape \(1, -1, -1\)"),
    "huge": (shaped(2**62, 2**62), r"shape .* but has 1 values"),
    "too few": (shaped(2, 3), r"\(1, 2, 3\), but has 1 values"),
    "no values": (layer("c", [field(7, field(1, 3))]), "has 0 values"),
    "no shape": (layer("c", [field(5, ONE.tobytes())]), r"\(0, 0, 0, 0\), but has 1 values"),
}


@pytest.mark.parametrize("case", ABSURD)
def test_an_absurd_file_is_refused_in_one_line_that_names_it(case: str) -> None:
    data, message = ABSURD[case]
    with pytest.raises(WeightsError, match=message) as caught:
        read_file(data, "net.caffemodel")
    assert re.match(r"net\.caffemodel cannot be read .*[^\n]*$", str(caught.value))


@given(st.binary(max_size=64), st.integers(0, len(caffemodel(ARRAYS)) - 1))
def test_whatever_the_bytes_only_a_weights_error_comes_out(noise: bytes, place: int) -> None:
    whole = caffemodel(ARRAYS)
    for data in (noise, whole[:place] + noise + whole[place + len(noise) :]):
        try:
            _, arrays = read_caffemodel(data)
        except WeightsError:
            continue
        assert sum(array.size for array in arrays.values()) <= len(data) // 4
