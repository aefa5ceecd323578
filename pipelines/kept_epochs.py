"""The epochs that Ray Train keeps of a run: a folder for each, and a snapshot that names them."""

from __future__ import annotations

import re
from collections.abc import Collection

import pyarrow.fs
from ray.train import Result
from ray.train.v2._internal.exceptions import CheckpointManagerInitializationError

from pipelines import storage
from pipelines.errors import InputError, first_sentence
from pipelines.train_settings import START_ANEW

FOLDER = re.compile(r"checkpoint_\d{4}(-\d{2}){2}_\d{2}(-\d{2}){2}\.\d+")
"""Ray's names, which sort by time."""

SNAPSHOT_FILE = "checkpoint_manager_snapshot.json"


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
        raise InputError(
            f"run {run_uri} cannot go on from {storage.join(run_uri, SNAPSHOT_FILE)}: "
            f"{first_sentence(error)}; {START_ANEW}"
        ) from error


def remove_left_over(
    filesystem: pyarrow.fs.FileSystem, path: str, kept: Collection[str]
) -> list[str]:
    """Remove the folders of epochs that are not ``kept``; return their names.

    A job that is stopped between an upload and Ray's snapshot leaves one, which nobody would ever
    read. Those that are younger than all kept ones stay: they may be under way in another job.
    Raises OSError.
    """
    folders = filesystem.get_file_info(pyarrow.fs.FileSelector(path))
    names = sorted(info.base_name for info in folders if FOLDER.fullmatch(info.base_name))
    left = [name for name in names if name not in kept and name < max(kept, default="")]
    for name in left:
        filesystem.delete_dir(f"{path}/{name}")
    return left
