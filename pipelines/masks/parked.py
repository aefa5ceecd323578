"""Units that could not be done, remembered by run, so that a broken shard is not tried for ever.

    OUTPUT/_fcn/failed/<G>/<K>-<V>-<n>.json

is the n-th run that could not do unit K in version V. After `PARK_AFTER` runs the unit is parked:
later runs leave it alone and name it. Input that is uploaded anew has another version and so starts
anew, by itself.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import count

from pipelines import storage
from pipelines.errors import ForeignObjectError
from pipelines.masks.generation import Generation, PartName
from pipelines.masks.listing import names_in

PARK_AFTER = 3
"""Runs."""

_NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})-[1-9][0-9]*\.json")


def record_failure(
    output: str, generation: Generation, name: PartName, reason: str, run_id: str
) -> int:
    """Remember that a run could not do a unit; which failing run of this version it is, from 1.

    A run counts once, however often it calls. Raises ForeignObjectError if something else stands
    at the name.
    """
    text = json.dumps({"run": run_id, "reason": reason[:1000]})
    for number in count(1):
        uri = _uri(output, generation, name, number)
        if storage.create(uri, text.encode()) or _read(uri)["run"] == run_id:
            return number
    raise AssertionError("numbers do not end")


def failures(output: str, generation: Generation) -> dict[tuple[str, str], int]:
    """By unit and version, how many runs could not do it. One listing."""
    matches = (_NAME.fullmatch(name) for name in names_in(_folder(output, generation)))
    return dict(Counter((match[1], match[2]) for match in matches if match))


def last_reason(output: str, generation: Generation, name: PartName, runs: int) -> str:
    """Why the last of ``runs`` failing runs, as `failures` counts them, could not do a unit."""
    return str(_read(_uri(output, generation, name, runs))["reason"])


def _folder(output: str, generation: Generation) -> str:
    return storage.join(output, "_fcn", "failed", generation.id)


def _uri(output: str, generation: Generation, name: PartName, number: int) -> str:
    file = f"{name.unit}-{name.version}-{number}.json"
    return storage.join(_folder(output, generation), file)


def _read(uri: str) -> dict[str, str]:
    try:
        value = json.loads(storage.read_bytes(uri))
        return {"run": value["run"], "reason": value["reason"]}
    except (ValueError, TypeError, KeyError) as error:
        raise ForeignObjectError(
            f"{uri} is no record of a failure ({error}); it was left untouched: move it away"
        ) from error
