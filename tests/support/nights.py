"""Whole nights of bulk segmentation without Ray: the pipeline's stages, unit after unit, in here.

Everything else is the real thing: preflight, plans, parts, snapshots, the pointer, the records of
failures and runs. `Stage.before` lets a test do something to the world at a chosen moment; a raised
`Killed` is what a SIGKILL leaves behind, since nothing in the project catches it.
"""

from __future__ import annotations

import io
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from fcn_model import Outcome, Segmenter, load_segmenter
from pipelines import cluster, storage
from pipelines.masks import head, reader, snapshots
from pipelines.masks.snapshot import Snapshot
from pipelines.masks.verify import verify
from pipelines.segmentation import pipeline, preflight
from pipelines.segmentation.inference import Infer
from pipelines.segmentation.night import segment
from pipelines.segmentation.result import SegmentResult
from pipelines.segmentation.settings import SegmentConfig
from pipelines.segmentation.stages import Job, encode_and_commit, fetch_and_decode
from pipelines.segmentation.unit_row import UnitRow
from pipelines.sources import Source, open_source
from tests.support.made import picture, png

Moment = Literal["read", "commit"]
Rows = dict[str, dict[str, Any]]


class Killed(BaseException):
    """The process that runs the night is gone."""


class Remembering:
    """A segmenter that works on each image once; tests of many nights have the same few."""

    known: ClassVar[dict[tuple[str, bytes], Outcome]] = {}

    def __init__(self, segmenter: Segmenter, model: str) -> None:
        self._segmenter, self._model = segmenter, model

    def batch(self, images: Sequence[np.ndarray], planes: Any) -> list[Outcome]:
        """As the segmenter's."""
        keys = [(f"{self._model} {image.shape}", image.tobytes()) for image in images]
        if any(key not in self.known for key in keys):
            self.known.update(zip(keys, self._segmenter.batch(images, planes), strict=True))
        return [self.known[key] for key in keys]


@dataclass
class Stage:
    """Stands in for Ray's pipeline; ``tried`` names the inputs of the units that it was given."""

    before: Callable[[Moment, UnitRow], None] = lambda _moment, _row: None
    tried: list[str] = field(default_factory=list)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Stage:
        """Let nights run on this stage, and need no Ray."""
        monkeypatch.setattr(pipeline, "run", self._run)
        monkeypatch.setattr(preflight, "check_cluster", lambda _config: None)
        monkeypatch.setattr(cluster, "actors_per_node", lambda _actors: 1)
        return self

    def _run(self, job: Job, rows: Sequence[UnitRow], actors: int) -> Iterator[dict[str, Any]]:
        assert actors == 1
        network = Infer(job)
        network.segmenter = Remembering(network.segmenter, job.generation.model)  # type: ignore[assignment]
        for row in rows:
            self.tried.append(row.planned.identity)
            self.before("read", row)
            table = network(fetch_and_decode(pa.table({"meta": [row.new()["meta"]]}), job))
            self.before("commit", row)
            yield from map(json.loads, encode_and_commit(table, job)["receipt"].to_pylist())


@dataclass(frozen=True)
class World:
    """An archive and the output that nights make of it, below ``root``; units of two images."""

    root: str
    checkpoint: Path
    output: str = "out"

    @property
    def archive(self) -> str:
        """The input."""
        return storage.join(self.root, "in")

    @property
    def uri(self) -> str:
        """The output."""
        return storage.join(self.root, self.output)

    def put(self, name: str, content: bytes | int) -> None:
        """Upload an image, of noise by a seed, or any bytes."""
        data = png(picture(content)) if isinstance(content, int) else content
        storage.replace(storage.join(self.archive, name), data)

    def delete(self, uri: str) -> None:
        """Delete an object that is there."""
        ref = storage.stat(uri)
        assert ref is not None, uri
        assert storage.delete(ref)

    def source(self) -> Source:
        """The archive as it is now."""
        return open_source(self.archive, unit_records=2, on_bad_shard="unit")

    def night(self, source: Source | None = None, **options: Any) -> SegmentResult:
        """One run over the archive as it is now, or as it was listed before."""
        settings = {"checkpoint": str(self.checkpoint), "output": self.uri} | options
        config = SegmentConfig(**settings)
        return segment(config, source or self.source(), progress=lambda _text: None)

    def rows(self, **which: Any) -> Rows:
        """What readers see, by key; every key once."""
        found = reader.open_masks(self.uri, verify=True, **which).to_table().to_pylist()
        rows = {row["key"]: row for row in found}
        assert len(rows) == len(found)
        return rows

    def published(self) -> int | None:
        """The number of the published snapshot."""
        found = head.read(self.uri)
        return found.sequence if found else None

    def newest(self, generation: str) -> Snapshot:
        """The newest snapshot of a generation, which has one."""
        found = snapshots.latest(self.uri, generation)
        assert found is not None
        return found

    def wrong(self, **options: Any) -> Counter[str]:
        """What a verification against the archive finds, by kind; every mask is decoded."""
        found = verify(
            self.uri, source=self.source(), deep=True, progress=lambda _text: None, **options
        )
        return Counter({kind: count for kind, count in found.counts.items() if count})

    def objects(self, *folders: str) -> dict[str, str]:
        """Every object below folders of the output, by its name, with its version."""
        found = {
            storage.relative(ref.uri, self.uri): ref.etag
            for ref, _ in storage.list_with_ages(self.uri, hidden=True)
        }
        return {name: etag for name, etag in found.items() if name.startswith(folders)}


@contextmanager
def every_write(act: Callable[..., None]) -> Iterator[None]:
    """Call ``act`` before and after every write of the nights within, but for the preflight's.

    It gets the write's number, from 1, its URI, and whether it is ``done``.
    """
    patch, numbers = pytest.MonkeyPatch(), itertools.count(1)

    def wrapped(write: Callable[..., bool]) -> Callable[..., bool]:
        def counted(uri: str, *rest: Any) -> bool:
            number = next(numbers)
            act(number, uri, done=False)
            written = write(uri, *rest)
            act(number, uri, done=True)
            return written

        return counted

    for name in ("create", "swap"):
        patch.setattr(storage, name, wrapped(getattr(storage, name)))
    try:
        yield
    finally:
        patch.undo()


def expected(checkpoint: Path, seed: int) -> np.ndarray:
    """The mask of the picture of a seed, by the two lines that the README gives."""
    return load_segmenter(checkpoint)(picture(seed))


def mask(row: dict[str, Any]) -> np.ndarray:
    """The mask of an ok row, by Pillow."""
    assert row["status"] == "ok", row
    return np.asarray(Image.open(io.BytesIO(row["mask"]["bytes"])))
