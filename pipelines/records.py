"""One image on its way through the pipeline, still encoded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Record:
    """An image file and, if there is one, its label file, as bytes.

    ``uri`` and ``etag`` name the object in which the image was first found: itself, or a tar.
    ``error`` is (kind, text) if the image could not be fetched; ``image`` is empty then.
    """

    key: str
    uri: str
    etag: str
    image: bytes
    label: bytes | None = None
    error: tuple[str, str] | None = None
