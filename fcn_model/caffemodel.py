"""A ``.caffemodel`` as arrays by name, read with protobuf alone: no Caffe, no generated code.

The messages below are the part of ``src/caffe/proto/caffe.proto`` of BVLC/caffe that holds trained
blobs, in its present form (``layer``) and the one before it (``layers``).
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
from numpy.typing import NDArray

from fcn_model.errors import WeightsError

PACKAGE = "caffe_blobs"
BLOBS = ("weight", "bias")
"""What the first two blobs of a layer are; further ones are called ``blob2`` and so on."""

MAX_AXES = 32
"""Caffe's own bound (blob.hpp)."""

_MESSAGES: dict[str, tuple[tuple[str, int, str], ...]] = {
    "BlobShape": (("dim", 1, "int64*"),),
    "BlobProto": (
        ("num", 1, "int64"),
        ("channels", 2, "int64"),
        ("height", 3, "int64"),
        ("width", 4, "int64"),
        ("data", 5, "float*"),
        ("shape", 7, "BlobShape"),
        ("double_data", 8, "double*"),
    ),
    "LayerParameter": (("name", 1, "string"), ("blobs", 7, "BlobProto*")),
    "V1LayerParameter": (("layer", 1, "bytes"), ("name", 4, "string"), ("blobs", 6, "BlobProto*")),
    "NetParameter": (
        ("name", 1, "string"),
        ("layers", 2, "V1LayerParameter*"),
        ("layer", 100, "LayerParameter*"),
    ),
}
"""Name, number and type of each field; a star repeats it."""


def read_caffemodel(data: bytes) -> tuple[str, dict[str, NDArray[np.float32]]]:
    """The net's name, and its arrays as ``LAYER.weight`` and ``LAYER.bias``, shaped as they lie.

    Files of before 2015 give every blob four axes: a fully connected weight is (1, 1, O, I) and a
    bias (1, 1, 1, O). Raises WeightsError for what is no such file, holds no blob, has two layers
    of one name, or a blob whose values do not fill its shape.
    """
    try:
        net = _net_class().FromString(data)
    except message.DecodeError as error:
        raise WeightsError(f"it is no protobuf message of Caffe's ({error})") from error
    if any(layer.HasField("layer") for layer in net.layers):
        raise WeightsError(
            "it is of Caffe's first format; let Caffe's upgrade_net_proto_binary rewrite it"
        )
    arrays: dict[str, NDArray[np.float32]] = {}
    for layer in (*net.layers, *net.layer):
        for index, blob in enumerate(layer.blobs):
            kind = BLOBS[index] if index < len(BLOBS) else f"blob{index}"
            name = f"{layer.name}.{kind}"
            if name in arrays:
                raise WeightsError(f"two of its layers with blobs are called {layer.name!r}")
            arrays[name] = _array(blob, name)
    if not arrays:
        raise WeightsError("none of its layers holds a blob; is it a net without its weights?")
    return net.name, arrays


def _array(blob: Any, name: str) -> NDArray[np.float32]:
    if blob.HasField("shape"):
        shape = tuple(blob.shape.dim)
    else:
        shape = (blob.num, blob.channels, blob.height, blob.width)
    values = blob.double_data or blob.data
    if len(shape) > MAX_AXES or min(shape, default=1) < 1 or math.prod(shape) != len(values):
        shown = str(shape[:MAX_AXES])[:200]
        raise WeightsError(f"{name} is said to be of shape {shown}, but has {len(values)} values")
    return np.array(values, np.float32).reshape(shape)


@cache
def _net_class() -> Any:
    """The class that parses a NetParameter, made from `_MESSAGES` in a pool of its own."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name=f"{PACKAGE}.proto", package=PACKAGE)
    for title, members in _MESSAGES.items():
        described = file.message_type.add(name=title)
        for name, number, kind in members:
            plain = kind.rstrip("*")
            label = kinds.LABEL_OPTIONAL if kind == plain else kinds.LABEL_REPEATED
            field = described.field.add(name=name, number=number, label=label)
            if plain in _MESSAGES:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".{PACKAGE}.{plain}"
            else:
                field.type = kinds.Type.Value(f"TYPE_{plain.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.NetParameter"))
