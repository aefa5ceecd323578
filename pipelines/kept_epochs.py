"""The epochs that Ray Train keeps of a run: a folder for each, and a snapshot that names them."""

from __future__ import annotations

import pyarrow.fs
from ray.train import Result
from ray.train.v2._internal.exceptions import CheckpointManagerInitializationError

from pipelines import storage
from pipelines.errors import InputError

SNAPSHOT_FILE = "checkpoint_manager_snapshot.json"
START_ANEW = "choose another --name to start anew; best/, if the run has one, is as it was"
"""What to do about a run that cannot go on."""


def finished_epochs(run_uri: str, filesystem: pyarrow.fs.FileSystem, path: str) -> int:
    """Those that the run has behind it; ``path`` is where it lies in the filesystem.

    Raises InputError if the snapshot is damaged, or an epoch's folder that it names is gone.
    """
    try:
        found = Result.from_path(path, storage_filesystem=filesystem)
        return int((found.metrics or {}).get("epoch", 0))
    except RuntimeError:  # Ray Train has not left anything there
        return 0
    except (
        CheckpointManagerInitializationError,
        AssertionError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        # Ray's further sentences and lines are of its own options.
        why = repr(error) if not str(error) else str(error).splitlines()[0].split(". ")[0]
        raise InputError(
            f"run {run_uri} cannot go on from {storage.join(run_uri, SNAPSHOT_FILE)}: {why}; "
            f"{START_ANEW}"
        ) from error
