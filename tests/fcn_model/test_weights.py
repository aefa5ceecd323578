from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import safetensors.torch
import torch
from torchvision.models import VGG16_Weights

from fcn_model.errors import WeightsError
from fcn_model.weights import read_file, read_weights, torchvision_weights

TENSORS = {
    "features.0.weight": torch.arange(12, dtype=torch.float16).reshape(2, 2, 3) / 8,
    "features.0.bias": torch.tensor([0.5, -2.0], dtype=torch.float64),
    "count": torch.tensor(3),
}


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def zipped(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def big_endian(value: torch.Tensor) -> np.ndarray[Any, Any]:
    array = value.numpy()
    return array.astype(array.dtype.newbyteorder(">"))


FILES = {
    "vgg16-397923af.pth": saved(TENSORS),
    "nested.PT": saved({"state_dict": TENSORS, "epoch": 3}),
    "model_best.pth.tar": saved({"model_state_dict": TENSORS, "best_mean_iu": np.float64(0.6)}),
    "model.pt": saved({"model": TENSORS, "epoch": 3}),
    "parallel.pth": saved({f"module.{name}": value for name, value in TENSORS.items()}),
    "s3://bucket/a.b/model.safetensors": safetensors.torch.save(TENSORS),
    "features.fp16.npz": zipped({name: value.numpy() for name, value in TENSORS.items()}),
    "big_endian.npz": zipped({name: big_endian(value) for name, value in TENSORS.items()}),
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_tensors_in_float32(name: str) -> None:
    found = read_weights(FILES[name], name)
    assert set(found) == set(TENSORS)
    for key, value in TENSORS.items():
        assert found[key].dtype == (torch.float32 if value.is_floating_point() else torch.int64)
        torch.testing.assert_close(found[key], value.to(found[key].dtype), rtol=0, atol=0)


class Malice:
    """Unpickling it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.target, "it ran")


def test_a_trainers_checkpoint_says_what_its_net_is() -> None:
    document = {"arch": "FCN8sAtOnce", "model_state_dict": TENSORS, "best_mean_iu": np.float32(1)}
    assert read_file(saved(document), "checkpoint.pth.tar").net == "FCN8sAtOnce"
    assert not read_file(saved(TENSORS), "plain.pth").net


def test_a_tensor_larger_than_what_is_stored_of_it_is_refused() -> None:
    huge = torch.zeros(1, dtype=torch.float16).expand(10**15)
    with pytest.raises(
        WeightsError, match=r"a\.pth: x is of shape \(1000000000000000,\), for which"
    ):
        read_weights(saved({"x": huge}), "a.pth")
    sparse = torch.ones(2, 2).to_sparse()
    with pytest.raises(WeightsError, match=r"a\.pth: x must be a plain tensor, .*sparse"):
        read_weights(saved({"x": sparse}), "a.pth")


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_malicious_pickle_runs_nothing(tmp_path: Path, wrapped: bool) -> None:
    target = tmp_path / "proof"
    malice = {"conv1_1.weight": Malice(target)} if wrapped else Malice(target)
    files = {
        "zip.pth": saved(malice),
        "bare.pt": pickle.dumps(malice),
        "model.npz": zipped({"a": np.array([Malice(target)], dtype=object)}),
        "pickle.npz": pickle.dumps(malice),
        "model.safetensors": pickle.dumps(malice),
        "model.caffemodel": pickle.dumps(malice),
        "trainer.pth.tar": saved({"model_state_dict": TENSORS, "best_mean_iu": malice}),
    }
    for name, data in files.items():
        with pytest.raises(WeightsError, match=name):
            read_weights(data, name)
        assert not target.exists(), name
    pickle.loads(files["bare.pt"])  # the malice is real
    assert target.exists()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("cut", [0, 7, 200])
def test_a_cut_file_is_refused_by_name(name: str, cut: int) -> None:
    with pytest.raises(WeightsError, match=r"cannot be read as|more than tensors") as caught:
        read_weights(FILES[name][:cut], name)
    assert str(caught.value).startswith(name)
    assert "\n" not in str(caught.value)


def test_every_byte_of_a_file_may_be_damaged() -> None:
    tensors = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.ones(3)}
    compressed, old, member, archive = (io.BytesIO() for _ in range(4))
    arrays: dict[str, Any] = {name: value.numpy() for name, value in tensors.items()}
    np.savez_compressed(compressed, **arrays)
    torch.save(tensors, old, _use_new_zipfile_serialization=False)
    refused = 0
    for name, data in (("a.npz", compressed.getvalue()), ("a.pth", old.getvalue())):
        for place in range(len(data)):
            damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            try:
                read_weights(damaged, name)  # a number may have become another
            except WeightsError:
                refused += 1
    assert refused > 300
    np.save(member, np.ones(3))
    with zipfile.ZipFile(archive, "w") as written:
        written.writestr("a.npy", member.getvalue().replace(b"(3,)", b"(3, "))
    with pytest.raises(WeightsError, match=r"a\.npz cannot be read as a \.npz file"):
        read_weights(archive.getvalue(), "a.npz")


@pytest.mark.parametrize(
    ("data", "start"),
    [
        (b"<!DOCTYPE html>\n<title>404</title>", "<!DOCTYPE html>"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "version https://git"),
    ],
)
def test_what_is_no_torch_file_is_refused_by_how_it_starts(data: bytes, start: str) -> None:
    with pytest.raises(WeightsError) as caught:
        read_weights(data, "vgg16.pth")
    assert f"starts with b'{start}" in str(caught.value)
    assert "no torch file" in str(caught.value)
    assert "more than tensors" not in str(caught.value)


def test_what_is_more_than_tensors_is_named_without_advice_to_run_it() -> None:
    for value, what in (
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"a": np.zeros(3)}, "numpy._core.multiarray._reconstruct"),
    ):
        with pytest.raises(WeightsError) as caught:
            read_weights(saved(value), "a.pth")
        assert f"a.pth holds more than tensors, {what}, which is never run" in str(caught.value)
        assert "weights_only" not in str(caught.value)
        assert str(caught.value).isprintable()
    with pytest.raises(WeightsError) as caught:
        read_weights(b"\x80\x02" + bytes(20), "damaged.pth")
    assert "(UnpicklingError: Unsupported operand 0)" in str(caught.value)


def test_an_array_that_is_no_archive_is_refused() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    with pytest.raises(WeightsError, match="single array, not an archive"):
        read_weights(buffer.getvalue(), "a.npz")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "must hold tensors by name, it holds a list"),
        ({}, "must hold tensors by name, it holds a dict"),
        ({"a": torch.zeros(1), "epoch": 3}, "under 'epoch' it holds a int"),
        ({5: torch.zeros(1)}, "under 5 it holds a Tensor"),
    ],
)
def test_what_is_no_state_dict_is_refused(value: object, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        read_weights(saved(value), "a.pth")


def test_an_unknown_suffix_is_refused_with_the_known_ones() -> None:
    with pytest.raises(WeightsError, match=r"a\.h5: .*\.pth, \.pt, .*\.npz, \.caffemodel"):
        read_weights(b"", "a.h5")


def test_torchvision_weights_are_had_by_their_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def state_dict(self: VGG16_Weights, **options: Any) -> dict[str, torch.Tensor]:
        asked.update(options, name=self.name)
        return TENSORS

    monkeypatch.setattr(VGG16_Weights, "get_state_dict", state_dict)
    assert set(torchvision_weights("VGG16_Weights.DEFAULT")) == set(TENSORS)
    assert asked["name"] == "IMAGENET1K_V1"
    assert asked["weights_only"]
    assert asked["check_hash"]


def test_weights_that_cannot_be_had_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(self: VGG16_Weights, **options: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(VGG16_Weights, "get_state_dict", offline)
    with pytest.raises(
        WeightsError, match=r"could not be fetched from https://.*no route.*by path"
    ):
        torchvision_weights("VGG16_Weights.IMAGENET1K_V1")
    for name in ("VGG16_Weights.NO", "NoWeights.DEFAULT", "VGG16_Weights"):
        with pytest.raises(WeightsError, match=f"torchvision has no weights named '{name}'"):
            torchvision_weights(name)
