"""The record that every run of bulk segmentation leaves: settings, counts, times and versions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from fcn_model import ModelConfig
from pipelines import cluster, storage
from pipelines.masks.generation import Generation
from pipelines.segmentation.result import SegmentResult
from pipelines.segmentation.settings import SegmentConfig


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
    run: str,
    config: SegmentConfig,
    model: ModelConfig,
    generation: Generation,
    result: SegmentResult,
    receipts: Iterable[dict[str, Any]],
) -> str:
    """Write the record of ``run`` under the output; returns its URI."""
    record = {
        "run": run,
        "config": asdict(config),
        "model": {"network": model.spec.name, "digest": model.digest},
        "generation": json.loads(generation.to_json()),
        "result": asdict(result),
        **summary(receipts),
        "versions": cluster.versions(),
    }
    uri = storage.join(storage.parse_uri(config.output), "_fcn", "run", f"{run}.json")
    storage.create(uri, json.dumps(record, indent=1).encode())
    return uri
