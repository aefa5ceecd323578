"""Which parts are the masks under a URI: those that count, where a snapshot says so."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines import storage
from pipelines.errors import NotFoundError
from pipelines.masks import reader
from pipelines.masks.generation import PartName
from pipelines.storage import ObjectRef


def list_masks(masks_uri: str) -> list[ObjectRef]:
    """The parts of masks under a URI: those of the published snapshot, where there is one.

    Raises NotFoundError if there are none.
    """
    counting = reader.counting(masks_uri)
    refs = storage.list_objects(masks_uri)
    found = [
        ref
        for ref in refs
        if PartName.parse(ref.uri.rsplit("/", 1)[1]) is not None
        and (counting is None or ref.uri in counting)
    ]
    if counting is None:
        found = _last_tries(found)
    elif len(found) < len(counting):
        raise NotFoundError(
            f"{len(counting) - len(found)} parts of the published masks of {masks_uri} are gone, "
            f"such as {min(counting - {ref.uri for ref in found})}; jobs/verify.py says more"
        )
    if not found:
        raise NotFoundError(
            f"{masks_uri} holds no masks (part-*.parquet); give the folder that segment printed"
        )
    return found


def _last_tries(parts: Sequence[ObjectRef]) -> list[ObjectRef]:
    """Of several tries at one version of a unit, in one folder, the last."""
    last: dict[tuple[str, str, str], tuple[int, ObjectRef]] = {}
    for ref in parts:
        folder, _, file = ref.uri.rpartition("/")
        name = PartName.parse(file)
        assert name is not None, "they were picked by their names"
        key = (folder, name.unit, name.version)
        last[key] = max(last.get(key, (-1, ref)), (name.retry, ref), key=lambda one: one[0])
    return [ref for _, ref in last.values()]
