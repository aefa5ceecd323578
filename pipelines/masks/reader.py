"""Reading masks: the published snapshot of an output as a pyarrow dataset, or as a list of files.

    from pipelines.masks.reader import open_masks

    masks = open_masks("s3://bucket/masks")
    table = masks.to_table(columns=["key", "class_pixels"])

What is opened stays the same set of files, whatever happens meanwhile: a night that adds parts, a
unit that is done anew, a pointer that moves on or back.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.dataset as ds
from pyarrow.fs import LocalFileSystem

from pipelines import storage
from pipelines.errors import ChangedError, InputError, NotFoundError, StoreError
from pipelines.masks import head, snapshots
from pipelines.masks.generation import PartName
from pipelines.masks.snapshot import Snapshot
from pipelines.masks.store_files import store_filesystem
from pipelines.schemas import MASKS, classes_of, with_metadata
from pipelines.storage import ObjectRef

SHOWN = 3

_FOLDER = re.compile(r"(?P<output>.+)/data/gen=(?P<generation>[0-9a-f]{16})")


def open_masks(
    output: str,
    *,
    generation: str | None = None,
    sequence: int | None = None,
    verify: bool = False,
) -> ds.Dataset:
    """The published masks under ``output``: one row per record, of the schema `MASKS`.

        masks = open_masks("s3://bucket/masks")
        masks.to_table(columns=["key", "error"], filter=ds.field("status") == "error")
        classes_of(masks.schema).names  # `pipelines.schemas` reads the class list

    ``output`` is what was given to ``jobs/segment.py``, a path or an ``s3://`` URI. ``generation``
    opens the newest snapshot of another generation than the published one, ``sequence`` an older
    or newer snapshot. A folder of parts, ``OUTPUT/data/gen=…`` or a copy of it, can be given as
    well: it is read by its newest snapshot, or as it lies if it has none.

    ``verify`` first compares every part's size and version with the snapshot, and its SHA-256
    where the version differs, as in a copied output; then every page's checksum when it is read,
    so that a damaged page is an OSError.

    Raises NotFoundError, which says what is there, if nothing is published or a part is gone;
    ChangedError if ``verify`` finds other bytes than those of the snapshot; StoreError if the store
    fails.
    """
    chosen = _choose(storage.parse_uri(output), generation, sequence)
    if verify:
        _verify(chosen)
    options = ds.ParquetFragmentScanOptions(page_checksum_verification=verify)
    parquet = ds.ParquetFileFormat(default_fragment_scan_options=options)
    system = store_filesystem() if storage.is_s3(chosen.folder) else LocalFileSystem()
    fragments = [
        parquet.make_fragment(_path(ref.uri), system, file_size=ref.size) for ref in chosen.refs
    ]
    schema = _schema(chosen, fragments[0]) if fragments else MASKS
    return ds.FileSystemDataset(fragments, schema, parquet, system)


def files(output: str, *, generation: str | None = None, sequence: int | None = None) -> list[str]:
    """The files that `open_masks` reads, for other tools: absolute paths, or ``s3://`` URIs."""
    chosen = _choose(storage.parse_uri(output), generation, sequence)
    return [ref.uri if storage.is_s3(ref.uri) else _path(ref.uri) for ref in chosen.refs]


def counting(root: str) -> frozenset[str] | None:
    """The URIs of the parts that count under an output or a generation's folder.

    Those that `open_masks` reads, or None where no snapshot says which.
    """
    try:
        chosen = _choose(storage.parse_uri(root), None, None)
    except NotFoundError:
        return None
    return None if chosen.snapshot is None else frozenset(ref.uri for ref in chosen.refs)


def find_snapshot(
    output: str, *, generation: str | None = None, sequence: int | None = None
) -> Snapshot:
    """The snapshot that `open_masks` reads. Raises NotFoundError if there is none."""
    output = storage.parse_uri(output)
    if generation is None:
        published = head.read(output)
        if published is None:
            raise NotFoundError(_why_nothing(output))
        generation, sequence = published.generation, sequence or published.sequence
    if sequence is not None:
        return snapshots.load(output, generation, sequence)
    newest = snapshots.latest(output, generation)
    if newest is None:
        there = ", ".join(snapshots.numbers_by_generation(output)) or "none"
        folder = storage.join(output, "data", f"gen={generation}")
        raise NotFoundError(
            f"{output} has no snapshot of generation {generation}; there are some of: {there}. "
            f"What a night left without one is in {folder}, which can be opened like an output"
        )
    return newest


@dataclass(frozen=True)
class _Chosen:
    """The files to read, all in one folder; without a snapshot nothing is known but the folder."""

    folder: str
    refs: tuple[ObjectRef, ...]
    snapshot: Snapshot | None = None


def _choose(root: str, generation: str | None, sequence: int | None) -> _Chosen:
    match = _FOLDER.fullmatch(root)
    output = match["output"] if match else root
    if match and generation is None:
        generation = match["generation"]
    try:
        snapshot = find_snapshot(output, generation=generation, sequence=sequence)
    except NotFoundError:
        lying = _as_it_lies(root)
        if lying.refs and sequence is None:
            return lying
        raise
    folder = storage.join(output, "data", f"gen={snapshot.generation}")
    refs = (
        ObjectRef(storage.join(output, snapshot.file(part)), part.etag, part.size)
        for part in snapshot.parts
    )
    return _Chosen(folder, tuple(refs), snapshot)


def _as_it_lies(folder: str) -> _Chosen:
    """The parts that lie in a folder now, the last try at each unit."""
    found: dict[str, tuple[PartName, ObjectRef]] = {}
    for ref in storage.list_objects(folder):
        name = PartName.parse(storage.relative(ref.uri, folder))
        if name is None:
            continue
        other, _ = found.setdefault(name.unit, (name, ref))
        if other.version != name.version:
            raise InputError(
                f"{folder} has two versions of a unit, {other.file} and {name.file}, and no "
                "snapshot that says which counts; open the output that it was copied from"
            )
        if name.retry > other.retry:
            found[name.unit] = (name, ref)
    return _Chosen(folder, tuple(ref for _, ref in sorted(found.values())))


def _verify(chosen: _Chosen) -> None:
    if chosen.snapshot is None:
        return
    listed = {ref.uri: ref for ref in storage.list_objects(chosen.folder)}
    for wanted, part in zip(chosen.refs, chosen.snapshot.parts, strict=True):
        now = listed.get(wanted.uri)
        if now is None:
            raise _gone(wanted.uri, chosen.snapshot)
        if now == wanted or (now.size == wanted.size and _sha256(now) == part.sha256):
            continue
        raise ChangedError(
            f"{wanted.uri} is not the part that {_title(chosen.snapshot)} names: {part.size} bytes "
            f"of SHA-256 {part.sha256} were wanted, {now.size} other bytes are there; restore it, "
            "or move it away and segment again"
        )


def _sha256(ref: ObjectRef) -> str:
    return hashlib.sha256(storage.read_bytes(ref.uri, etag=ref.etag)).hexdigest()


def _schema(chosen: _Chosen, fragment: ds.ParquetFileFragment) -> pa.Schema:
    """MASKS, with the class list and the image columns that the parts name in their footers."""
    uri = chosen.refs[0].uri
    try:
        classes = classes_of(fragment.physical_schema)
    except (pa.ArrowException, OSError) as error:
        if storage.stat(uri) is None:
            raise _gone(uri, chosen.snapshot) from error
        raise StoreError(f"{uri} cannot be read: {error}") from error
    return with_metadata(MASKS, classes=classes)


def _path(uri: str) -> str:
    return uri.removeprefix("s3://") if storage.is_s3(uri) else str(storage.local_path(uri))


def _gone(uri: str, snapshot: Snapshot | None) -> NotFoundError:
    where = f" of {_title(snapshot)}" if snapshot else ""
    return NotFoundError(
        f"{uri}{where} is gone: if an older snapshot was opened, its parts may have been swept "
        "away; otherwise restore it, or segment again"
    )


def _title(snapshot: Snapshot) -> str:
    return f"snapshot {snapshot.sequence} of generation {snapshot.generation}"


def _why_nothing(output: str) -> str:
    numbers = snapshots.numbers_by_generation(output)
    if not numbers:
        return (
            f"nothing is published in {output}, and there is no snapshot: give the --output of "
            "jobs/segment.py, of which a night has ended. What a first night has finished so far "
            f"can be read from {storage.join(output, 'data')}/gen=…"
        )
    newest = ", ".join(f"{made[-1]} of generation {name}" for name, made in numbers.items())
    return (
        f"nothing is published in {output}: its nights kept their snapshots back, and said why. "
        f"There is snapshot {newest}; open it with generation=…, or publish it with jobs/publish.py"
    )
