"""One image on its way through the pipeline, still encoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.label_rules import PNG_IDS, LabelRule

LABEL = "label"
"""The name of the first label among `Record.rules`; further labels are planes with names."""


@dataclass(frozen=True)
class Record:
    """An image file and, if there are such, its label and plane files, as bytes.

    ``uri`` and ``etag`` name the object in which the image was first found: itself, or a tar.
    ``error`` is (kind, text) if the image could not be fetched; ``image`` is empty then.
    ``planes`` lie beside the image: measured (``depth``, ``hha``) or further labels (``geo``).
    ``rules`` explain the label and the labels among the planes; without one it is a PNG of ids.
    """

    key: str
    uri: str
    etag: str
    image: bytes
    label: bytes | None = None
    error: tuple[str, str] | None = None
    planes: Mapping[str, bytes] = field(default_factory=dict)
    rules: Mapping[str, LabelRule] = field(default_factory=dict)

    def rule(self, name: str = LABEL) -> LabelRule:
        """How the bytes of the label, or of a plane that is one, become ids."""
        return self.rules.get(name, PNG_IDS)
