"""Amounts as people say them."""

from __future__ import annotations


def size(count: float) -> str:
    """Bytes, in the unit that leaves at most four digits before the point."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} bytes"


def duration(seconds: float) -> str:
    """A span of time, in the unit that leaves about two digits."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def many(count: int, noun: str) -> str:
    """A number with its noun, which gets an s unless there is one of it."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
