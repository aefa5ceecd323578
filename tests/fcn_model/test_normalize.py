from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import normalize, to_tensor

from fcn_model.errors import SpecError
from fcn_model.normalize import CAFFE, TORCHVISION, Normalization

IMAGE = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def test_torchvision_weights_get_what_torchvisions_transforms_give() -> None:
    expected = normalize(to_tensor(IMAGE), list(TORCHVISION.mean), list(TORCHVISION.std))
    torch.testing.assert_close(TORCHVISION(IMAGE), expected)


def test_published_weights_get_what_the_reference_reads() -> None:
    # voc_layers.py: in_ = in_[:, :, ::-1]; in_ -= self.mean; in_.transpose((2, 0, 1))
    expected = IMAGE.astype(np.float32)[:, :, ::-1] - np.array([104.00699, 116.66877, 122.67892])
    ours = CAFFE(IMAGE)
    np.testing.assert_allclose(ours.numpy(), expected.transpose(2, 0, 1), atol=1e-4)


@pytest.mark.parametrize("normalization", [TORCHVISION, CAFFE])
def test_tensors_batches_views_and_read_only_arrays_give_the_same(
    normalization: Normalization,
) -> None:
    expected = normalization(IMAGE)
    assert (expected.dtype, expected.shape) == (torch.float32, (3, 5, 7))
    frozen = IMAGE.copy()
    frozen.flags.writeable = False
    mirrored_twice = IMAGE[:, ::-1].copy()[:, ::-1]
    for same in (torch.from_numpy(IMAGE.copy()), frozen, mirrored_twice):
        torch.testing.assert_close(normalization(same), expected)
    batch = normalization(np.stack([IMAGE, IMAGE[::-1]]))
    torch.testing.assert_close(batch, torch.stack([expected, expected.flip(1)]))
    assert batch.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "image", [IMAGE.astype(np.float32), IMAGE[..., :1], IMAGE[0], torch.zeros(3, 5, 7)]
)
def test_anything_but_uint8_rgb_is_refused(image: Any) -> None:
    with pytest.raises(ValueError, match=r"must be uint8 \(H, W, 3\) or \(N, H, W, 3\), got"):
        TORCHVISION(image)


def test_a_normalization_survives_json() -> None:
    for normalization in (TORCHVISION, CAFFE):
        written = json.loads(json.dumps(normalization.to_dict()))
        assert Normalization.from_dict(written) == normalization


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"std": [1, 0, 1]}, "std must be positive"),
        ({"mean": [1, float("nan"), 1]}, "mean must be finite numbers, one a channel"),
        ({"scale": 0}, "scale must be a positive number, got 0"),
        ({"channel_order": "grb"}, "'rgb' or 'bgr', got 'grb'"),
        ({"mean": [1, 2]}, "std must be 2 finite numbers"),
        ({"mean": 1}, "a normalization is a JSON object"),
        ({"scale": None}, "a normalization is a JSON object"),
    ],
)
def test_a_normalization_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Normalization.from_dict({**CAFFE.to_dict(), **change})
