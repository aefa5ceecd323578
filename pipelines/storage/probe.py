"""Trying out, before any work, whether an output can hold results that are written exactly once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from fcn_model.errors import FCNError
from pipelines.errors import StoreError
from pipelines.storage import create, delete, is_s3, join, local_path, read_bytes, stat, swap
from pipelines.storage.deadline import ends_within

SECONDS = 7.0
"""For all requests together; a second or two go to finding out that nobody answers."""


def probe(output: str) -> None:
    """Create, read, swap and delete an object below ``output``, and leave nothing behind.

    Raises StoreError, after less than 10 s, which says what is missing: the store itself, the right
    to write, read or delete, or a condition that the store does not honour.
    """
    uri = join(output, "_fcn/probe", uuid.uuid4().hex)
    with ends_within(SECONDS), _no_new_folders(uri):
        try:
            _try_out(uri)
        except BaseException:
            with suppress(FCNError):  # the first error is the one to tell
                left = stat(uri)
                if left is not None:
                    delete(left)
            raise


def _try_out(uri: str) -> None:
    first, second, third = (f"{number} {uuid.uuid4().hex}".encode() for number in range(3))
    if not create(uri, first):
        raise _lacking(uri, "says that an object stands at a name that nobody has used")
    if create(uri, second):
        raise _lacking(uri, "does not honour If-None-Match: it created one name twice")
    made = stat(uri)
    if made is None or read_bytes(uri, etag=made.etag) != first:
        raise _lacking(uri, "does not return what was just written")
    if not swap(uri, second, made.etag):
        raise _lacking(uri, "refuses to replace a version that stands there (If-Match)")
    if swap(uri, third, made.etag):
        raise _lacking(uri, "does not honour If-Match: it replaced a version that was gone")
    swapped = stat(uri)
    if swapped is None or not delete(swapped) or stat(uri) is not None:
        raise _lacking(uri, "does not delete an object when told to")


def _lacking(uri: str, what: str) -> StoreError:
    return StoreError(
        f"{uri}: this store {what}; results could be lost or doubled, choose another output"
    )


@contextmanager
def _no_new_folders(uri: str) -> Iterator[None]:
    """Remove the folders on the way to a local file that were not there before, if empty."""
    parents = [] if is_s3(uri) else list(local_path(uri).parents)
    made = [folder for folder in parents if not folder.exists()]
    try:
        yield
    finally:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()
