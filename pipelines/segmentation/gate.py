"""The quality gate: whether new parts are fit to be published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from pipelines.masks.snapshot import SnapshotPart
from pipelines.segmentation.settings import SegmentConfig

MAX_NOT_FINITE = 0.01
"""Above this share of images with scores that are no numbers, the network is broken, not they."""


def faults(
    new: Iterable[SnapshotPart],
    config: SegmentConfig,
    *,
    expected: Mapping[str, int] | None = None,
) -> list[str]:
    """What is wrong with parts that no snapshot has yet, one line each; with none nothing is.

    Also those that an earlier run has left out of its snapshot: they must not slip in unseen.
    Of the error rows those that were ``expected``, by kind, say nothing against the run.
    """
    records = constant = 0
    errors: Counter[str] = Counter()
    for part in new:
        records += part.rows
        constant += part.constant
        errors.update(part.errors)
    errors -= Counter({kind: min(count, errors[kind]) for kind, count in (expected or {}).items()})
    if records == 0:
        return []
    kinds = ", ".join(f"{count} {kind}" for kind, count in errors.most_common(4))
    measured = [
        ("error rows", errors.total(), config.max_error_rate, "--max-error-rate", kinds),
        ("masks of one class", constant, config.max_constant_rate, "--max-constant-rate", ""),
        ("images with non-finite scores", errors["not_finite"], MAX_NOT_FINITE, "fixed", ""),
    ]
    return [
        f"{count} {what} of {records} ({count / records:.1%}{'; ' + more if more else ''}), "
        f"at most {limit:.1%} may be ({option})"
        for what, count, limit, option, more in measured
        if count > limit * records
    ]
