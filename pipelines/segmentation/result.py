"""What a run of bulk segmentation found and did."""

from __future__ import annotations

from dataclasses import dataclass, field

SHOWN = 5
"""Names shown of a list."""


@dataclass
class SegmentResult:
    """Counts of units and records are of the whole output, those of error rows of this run."""

    masks: str
    generation: str
    units: int
    already: int
    """Units that were done before this run."""
    records: int = 0
    """Rows that stand in the generation's parts now."""
    new_records: int = 0
    """Rows that this run wrote."""
    errors: int = 0
    """Error rows that this run wrote."""
    error_rows: int = 0
    """Error rows that stand in the generation's parts now."""
    seconds: float = 0.0
    gone: int = 0
    """Units whose input is no longer there; their rows stay."""
    failed: dict[str, str] = field(default_factory=dict)
    """Units that this run should have done and could not, and why; their old parts stand."""
    parked: dict[str, str] = field(default_factory=dict)
    """The same for those that three runs could not do; they are left until their input changes."""
    changed: list[str] = field(default_factory=list)
    """Units whose input has changed since; their old masks stand."""
    faults: list[str] = field(default_factory=list)
    """What the quality gate found; then nothing is published."""
    snapshot: int | None = None
    """The number of the snapshot that holds this run's work."""
    published: bool = False
    """Whether readers see that snapshot."""
    unpublished_because: str = ""

    @property
    def complete(self) -> bool:
        """Whether every unit of the input has its part, made from the input as it is now."""
        return not (self.failed or self.parked or self.changed)

    @property
    def images_per_second(self) -> float:
        """Over the whole run, with its start and its end."""
        return self.new_records / self.seconds if self.seconds else 0.0

    def explain(self) -> str:
        """What is not as it should be, in one line, and what to do."""
        lines = []
        for units, what in ((self.failed, "could not be done"), (self.parked, "are parked")):
            if units:
                named = "; ".join(f"{unit}: {why}" for unit, why in list(units.items())[:SHOWN])
                more = " …" if len(units) > SHOWN else ""
                lines.append(f"{len(units)} of {self.units} units {what}: {named}{more}")
        if self.changed:
            lines.append(
                f"{len(self.changed)} units changed since they were segmented, and keep their old "
                f"masks: {', '.join(self.changed[:SHOWN])}; --replace-changed does them again"
            )
        return ". ".join(lines) + f". What is finished stays in {self.masks}; run again to continue"

    def explain_faults(self) -> str:
        """What the quality gate found, in one line, and what to do."""
        return (
            f"not published: {'; '.join(self.faults)}. The masks are kept in {self.masks}, and "
            "readers still see what was published before; look at them, then run again with "
            "other limits, or with another model"
        )
