"""The record that every run of bulk segmentation leaves: settings, counts, times and versions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from pipelines import cluster, storage
from pipelines.segmentation.moments import Moments
from pipelines.segmentation.opening import Night
from pipelines.segmentation.result import SegmentResult


def summary(receipts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """What receipts add up to: bytes written, units by outcome, and worker seconds by stage."""
    outcomes: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    written = 0
    for receipt in receipts:
        outcomes[receipt["outcome"]] += 1
        seconds.update(receipt["seconds"])
        written += receipt["bytes"]
    return {
        "units_by_outcome": dict(outcomes),
        "output_bytes": written,
        "stage_seconds": {stage: round(spent, 3) for stage, spent in seconds.items()},
    }


def write(
    night: Night, result: SegmentResult, receipts: Sequence[dict[str, Any]], moments: Moments
) -> str:
    """Write the record of a run under its output; returns its URI."""
    record = {
        "run": night.run,
        "config": asdict(night.config),
        "model": {"network": night.model.spec.name, "digest": night.model.digest},
        "generation": json.loads(night.generation.to_json()),
        "result": asdict(result),
        **summary(receipts),
        "reached": moments.reached,
        "first_part": _first(receipts),
        "versions": cluster.versions(),
    }
    uri = storage.join(night.output, "_fcn", "run", f"{night.run}.json")
    storage.create(uri, json.dumps(record, indent=1).encode())
    return uri


def _first(receipts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Of the unit that was done first: its records, and the workers' seconds by stage."""
    if not receipts:
        return {}
    receipt = receipts[0]
    return {
        "records": receipt.get("stats", {}).get("records", 0),
        "seconds": receipt["seconds"],
    }
