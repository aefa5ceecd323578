"""Tar shards in the WebDataset convention to records."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.errors import ShardError
from pipelines.records import Record
from pipelines.storage import ObjectRef
from pipelines.suffixes import IMAGE_SUFFIXES
from pipelines.tar_members import members

LABEL_SUFFIXES = frozenset({"seg.png", "label.png", "mask.png"})
SHOWN = 8
METADATA_SUFFIXES = frozenset({"json", "txt", "cls"})


@dataclass
class _Sample:
    """The members of one key: those that may be its image or label, and which others it has."""

    contents: dict[str, bytes] = field(default_factory=dict)
    others: set[str] = field(default_factory=set)


def read_tar(ref: ObjectRef, data: bytes) -> list[Record]:
    """The records of a tar shard, in the order in which their keys first appear.

    The key is the member's name up to the first dot of its last part, the rest is the suffix. A
    label is ``.seg.png``, ``.label.png`` or ``.mask.png``, or ``.png`` beside an image of another
    format. Members of a key need not be neighbours. Other suffixes beside an image are ignored, and
    so are keys with metadata only (.json, .txt, .cls) and names that start with a dot.

    Raises ShardError, which names the tar and the member, for a cut or damaged archive, members
    other than regular files, unsafe names, repeated names, and keys with no image or two.
    """
    try:
        samples = _samples(data)
        chosen = {key: _choose(key, sample) for key, sample in samples.items()}
    except ShardError as error:
        raise ShardError(f"{ref.uri}: {error}") from error
    return [
        Record(key, ref.uri, ref.etag, image=pair[0], label=pair[1])
        for key, pair in chosen.items()
        if pair is not None
    ]


def _samples(data: bytes) -> dict[str, _Sample]:
    samples: dict[str, _Sample] = {}
    for name, content in members(data):
        folder, slash, base = name.rpartition("/")
        if base.startswith("."):
            continue
        stem, _, suffix = base.partition(".")
        suffix = suffix.lower()
        sample = samples.setdefault(f"{folder}{slash}{stem}", _Sample())
        if suffix in sample.contents or suffix in sample.others:
            raise ShardError(f"member {name!r} is there twice")
        if suffix in IMAGE_SUFFIXES or suffix in LABEL_SUFFIXES:
            sample.contents[suffix] = content
        else:
            sample.others.add(suffix)
    return samples


def _choose(key: str, sample: _Sample) -> tuple[bytes, bytes | None] | None:
    """Image and label of one key; None if it has metadata only."""
    images = [suffix for suffix in sample.contents if suffix not in LABEL_SUFFIXES]
    labels = [suffix for suffix in sample.contents if suffix in LABEL_SUFFIXES]
    if len(images) == 2 and "png" in images and not labels:
        images.remove("png")
        labels = ["png"]
    if not images and not labels and sample.others <= METADATA_SUFFIXES:
        return None
    if len(images) != 1 or len(labels) > 1:
        what = sorted(sample.contents) + sorted(sample.others)
        what = what[:SHOWN] + ["..."] * (len(what) > SHOWN)
        raise ShardError(
            f"key {key!r} needs one image and at most one label, but its suffixes are {what}; "
            "images are .jpg, .png, ..., labels .seg.png or .png beside an image of another format"
        )
    return sample.contents[images[0]], sample.contents[labels[0]] if labels else None
