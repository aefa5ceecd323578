"""The published masks as a Delta table, for query engines: the same files, none copied.

    OUTPUT/_delta_log/                   the table is OUTPUT itself

Delta keeps a list of files, and this writes the published snapshot into that list, as one
transaction that adds what is new and removes what was replaced. So the table follows HEAD, forward,
back and to another generation, and its history tells which snapshot it showed when. Readers of
plain Parquet look below ``OUTPUT/data`` and never see the log.

The files belong to the output, so that the table must not delete them: it keeps removed and unknown
files for a century, which VACUUM obeys. It cannot be marked append-only, since parts are replaced.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pyarrow as pa

from fcn_model.errors import FCNError
from pipelines import storage
from pipelines.errors import ForeignObjectError, InputError, StoreError
from pipelines.masks import reader
from pipelines.masks.snapshot import Snapshot, SnapshotPart
from pipelines.schemas import MASKS
from pipelines.storage.s3_client import endpoint, region

if TYPE_CHECKING:
    from deltalake import DeltaTable

TRIES = 5
KEPT = "interval 36500 days"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The table after an export, and how many files it changed."""

    version: int
    """Of the table; each transaction makes one."""
    generation: str
    sequence: int
    files: int
    added: int
    removed: int


@dataclass(frozen=True, kw_only=True)
class _Change:
    """Files by their path below the output: parts to add, sizes in bytes of what to remove."""

    add: dict[str, SnapshotPart]
    remove: dict[str, int]


def export_delta(output: str) -> Exported:
    """Make the Delta table of ``output`` show the published snapshot.

    If it does already, nothing is written. Each transaction records ``fcn:<generation>`` and the
    snapshot's number as Delta's txn. A transaction that ends in an error may have been made all the
    same, or another export may have come first: then the table is read and compared anew.

    Raises NotFoundError if nothing is published, InputError if deltalake is not installed,
    ForeignObjectError if the table has other columns, StoreError if the store fails.
    """
    output = storage.parse_uri(output)
    _check_installed()
    from deltalake.exceptions import DeltaError  # noqa: PLC0415

    trouble: Exception | None = None
    change = _Change(add={}, remove={})
    for attempt in range(TRIES):
        try:
            # The table before the pointer: a slow export cannot undo what a later one has done,
            # since its transaction fails if the table has moved on.
            table = _open(output)
            snapshot = reader.find_snapshot(output)
            left = _difference(table, snapshot)
            if table is not None and not (left.add or left.remove):
                return _exported(table, snapshot, change)
            change = left
            _commit(output, table, snapshot, change)
        except FCNError:
            raise
        except (DeltaError, OSError) as error:
            trouble = error
            time.sleep(0.2 * 2**attempt)
    raise StoreError(
        f"the Delta table {output} did not come to show the published snapshot in {TRIES} tries; "
        f"the last trouble was: {trouble}"
    )


def _check_installed() -> None:
    if find_spec("deltalake") is None:
        raise InputError(
            "a Delta table needs the package deltalake; install the extra: "
            "pip install -e '.[delta]'"
        )


def _open(output: str) -> DeltaTable | None:
    """The table as it is now, or None if there is none."""
    from deltalake import DeltaTable, Schema  # noqa: PLC0415

    place, options = _place(output)
    if not DeltaTable.is_deltatable(place, storage_options=options):
        return None
    table = DeltaTable(place, storage_options=options)
    if table.schema() != Schema.from_arrow(MASKS):
        raise ForeignObjectError(
            f"the Delta table {output} has other columns than masks have now; move "
            f"{storage.join(output, '_delta_log')} away and export again"
        )
    return table


def _difference(table: DeltaTable | None, snapshot: Snapshot) -> _Change:
    """What a table lacks and has too much; a file of another size counts as lacking."""
    wanted = {snapshot.file(part): part for part in snapshot.parts}
    listed: dict[str, int] = {}
    if table is not None:
        actions = pa.table(table.get_add_actions(flatten=True))
        names, sizes = (actions[name].to_pylist() for name in ("path", "size_bytes"))
        listed = dict(zip(names, sizes, strict=True))
    return _Change(
        add={path: part for path, part in wanted.items() if listed.get(path) != part.size},
        remove={path: size for path, size in listed.items() if path not in wanted},
    )


def _commit(output: str, table: DeltaTable | None, snapshot: Snapshot, change: _Change) -> None:
    from deltalake import CommitProperties, Schema, Transaction  # noqa: PLC0415
    from deltalake.transaction import (  # noqa: PLC0415
        AddAction,
        RemoveAction,
        create_table_with_add_actions,
    )

    now = int(time.time() * 1000)
    added = [
        AddAction(path, part.size, {}, now, True, json.dumps({"numRecords": part.rows}))
        for path, part in change.add.items()
    ]
    removed = [RemoveAction(path, True, now, size, {}) for path, size in change.remove.items()]
    properties = CommitProperties(
        app_transactions=[Transaction(f"fcn:{snapshot.generation}", snapshot.sequence)],
        max_commit_retries=0,  # on another table version the change would not be the right one
    )
    place, options = _place(output)
    schema = Schema.from_arrow(MASKS)
    if table is None:
        create_table_with_add_actions(
            place,
            schema,
            added,
            mode="error",
            name="masks",
            description="The published masks of jobs/segment.py, to which the files belong",
            configuration={"delta.deletedFileRetentionDuration": KEPT},
            storage_options=options,
            commit_properties=properties,
        )
    else:
        table.create_write_transaction(
            [*added, *removed], mode="append", schema=schema, commit_properties=properties
        )


def _place(output: str) -> tuple[str, dict[str, str]]:
    """Where the library finds the table; it takes credentials from the environment itself."""
    if not storage.is_s3(output):
        return str(storage.local_path(output)), {}
    options = {"AWS_REGION": region()}
    address = endpoint()
    if address:
        plain = str(address.startswith("http://")).lower()
        options |= {"AWS_ENDPOINT_URL": address, "AWS_ALLOW_HTTP": plain}
    return output, options


def _exported(table: DeltaTable, snapshot: Snapshot, change: _Change) -> Exported:
    return Exported(
        version=table.version(),
        generation=snapshot.generation,
        sequence=snapshot.sequence,
        files=len(snapshot.parts),
        added=len(change.add),
        removed=len(change.remove),
    )
