"""Outputs of segmentation made by hand: no network, no Ray, but real plans, parts and snapshots."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import images, storage
from pipelines.masks import head, parts, snapshots
from pipelines.masks.generation import Generation, PartName, data_uri, part_name
from pipelines.masks.plans import load_plan, plan_units
from pipelines.masks.snapshot import Snapshot
from pipelines.masks.verify import verify
from pipelines.sources import Source, open_source
from pipelines.units import Unit
from tests.support.made import CLASSES, picture, png

Rows = list[dict[str, Any]]
DAY = 86_400.0


def generation(model: str = "model-a") -> Generation:
    """A generation; another model is another one."""
    return Generation(model=model, network="fcn8s", precision="fp32", max_pixels=1000)


def archive(folder: Path, names: Iterable[str]) -> Source:
    """Pictures of a few pixels in a folder, as a source whose units have three of them."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.png").write_bytes(png(picture(len(name), 4, 5)))
    return open_source(str(folder), layout="archive", unit_records=3)


def rows_of(unit: Unit, made: Generation, broken: frozenset[str] = frozenset()) -> Rows:
    """What segmentation would write of a unit; ``broken`` keys become error rows."""
    count = unit.records or 0
    name = part_name(unit)
    return [_row(unit, made, name.unit, index, broken) for index in range(count)]


def _row(unit: Unit, made: Generation, name: str, index: int, broken: frozenset[str]) -> Any:
    ref = unit.objects[index if unit.kind == "raw" else 0]
    key = unit.keys[index] if unit.keys else f"{unit.start + index:06d}"
    row: dict[str, Any] = {
        "key": key,
        "uri": ref.uri,
        "etag": ref.etag,
        "height": 0,
        "width": 0,
        "mask": None,
        "class_pixels": None,
        "status": "error",
        "error_kind": "truncated",
        "error": "it ends early",
        "attempts": 1,
        "transient": False,
        "model": made.model,
        "unit": name,
        "record": index,
    }
    if key in broken:
        return row
    seed = sum(key.encode()) + index
    ids = np.random.default_rng(seed).integers(0, len(CLASSES), (4, 5), dtype=np.uint8)
    return row | {
        "height": 4,
        "width": 5,
        "mask": {"bytes": images.encode_mask(ids, CLASSES), "path": f"{key}.png"},
        "class_pixels": np.bincount(ids.ravel(), minlength=len(CLASSES)).tolist(),
        "status": "ok",
        "error_kind": "",
        "error": "",
    }


def write_part(
    output: str, made: Generation, unit: Unit, *, rows: Rows | None = None, retry: int = 0
) -> str:
    """Commit a unit's part; returns its URI."""
    first = part_name(unit)
    name = PartName(first.unit, first.version, retry)
    rows = rows_of(unit, made) if rows is None else rows
    identity = parts.part_identity(made, name, unit.identity, len(rows))
    uri = storage.join(data_uri(output, made), name.file)
    parts.commit(uri, parts.encode_part(rows, identity, CLASSES), identity)
    return uri


def plan(output: str, source: Source, made: Generation) -> tuple[Unit, ...]:
    """Plan a source, and write down what the generation is made of."""
    record = storage.join(output, "_fcn", "gen", f"{made.id}.json")
    storage.create(record, made.to_json())
    return plan_units(source, output, made, unit_records=3).units


def snapshot(output: str, made: Generation, uris: Iterable[str]) -> Snapshot:
    """Add parts to the generation's newest snapshot."""
    described = [snapshots.describe_part(uri) for uri in uris]
    return snapshots.extend(output, made.id, described, "a-run")


def night(
    output: str,
    source: Source,
    made: Generation | None = None,
    *,
    change: Callable[[Rows], Rows] = lambda rows: rows,
) -> Snapshot:
    """Plan, segment what has no part, snapshot and publish. ``change`` sees each unit's rows."""
    made = made or generation()
    uris = [
        write_part(output, made, unit, rows=change(rows_of(unit, made)))
        for unit in plan(output, source, made)
    ]
    done = snapshot(output, made, uris)
    head.advance(output, done)
    return done


def newest(output: str, made: Generation | None = None) -> Snapshot:
    """The newest snapshot of a generation, which has one."""
    found = snapshots.latest(output, (made or generation()).id)
    assert found is not None
    return found


def retry(output: str, number: int = 1, made: Generation | None = None) -> Snapshot:
    """Do the first unit of a generation again, as --retry-errors does, and publish."""
    made = made or generation()
    uri = write_part(output, made, units(output, made)[0], retry=number)
    done = snapshot(output, made, [uri])
    head.advance(output, done)
    return done


def four_generations(folder: Path) -> tuple[str, Path]:
    """An output with four generations, model-a to model-d, and its folder.

    Each was published after the one before, ten days apart, the last ten days ago.
    """
    source = archive(folder / "in", "abcdefgh")
    output = folder / "out"
    for letter in "abcd":
        night(output.as_uri(), source, generation(f"model-{letter}"))
        make_older(output, 10)
    return output.as_uri(), output


def put_snapshot(output: str, made: Snapshot) -> None:
    """Write a snapshot as it is, whatever it says, and publish it."""
    uri = snapshots.snapshot_uri(output, made.generation, made.sequence)
    storage.replace(uri, made.to_json())
    now = {"generation": made.generation, "sequence": made.sequence, "writer": "test"}
    storage.replace(head.head_uri(output), json.dumps(now).encode())


def units(output: str, made: Generation | None = None) -> tuple[Unit, ...]:
    """The planned units of a generation."""
    return load_plan(output, (made or generation()).id).units


def set_first(**fields: Any) -> Callable[[Rows], Rows]:
    """Change the first row of a unit, to be given to `night`."""
    return lambda rows: [rows[0] | fields, *rows[1:]]


def wrong(output: str, **options: Any) -> dict[str, int]:
    """What verification finds, by kind."""
    counts = verify(output, progress=lambda _: None, **options).counts
    return {kind: count for kind, count in counts.items() if count}


def make_older(folder: Path, days: float, *patterns: str) -> None:
    """Let the files below an output that match be written ``days`` earlier than they were."""
    for pattern in patterns or ("**/*",):
        for path in folder.glob(pattern):
            if path.is_file():
                then = path.stat().st_mtime - days * DAY
                os.utime(path, (then, then))


def everything(folder: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
