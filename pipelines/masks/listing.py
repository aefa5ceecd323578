"""The names in a folder of an output, which may not be there yet."""

from __future__ import annotations

from pipelines import storage
from pipelines.errors import NotFoundError


def names_in(folder: str) -> list[str]:
    """The names below a folder, sorted bytewise; none if the folder does not exist."""
    try:
        return [storage.relative(ref.uri, folder) for ref in storage.list_objects(folder)]
    except NotFoundError:
        return []
