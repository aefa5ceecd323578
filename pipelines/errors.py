"""What can go wrong between the store and the network, sorted by who has to act."""

from __future__ import annotations

from collections.abc import Mapping

from fcn_model.errors import FCNError


class InputError(FCNError, ValueError):
    """The user's input is wrong: a URI, a layout, an option, a data set. Correct it and retry."""


class NotFoundError(InputError, FileNotFoundError):
    """An object, folder or bucket that was named does not exist."""


class LabelError(InputError):
    """A label image holds an id outside the class list, or does not fit its image."""


class ImageError(FCNError, ValueError):
    """One image cannot be read. In bulk segmentation it becomes an error row.

    ``kind`` is one word for tables: ``empty``, ``not_an_image``, ``truncated``, ``too_large``,
    ``hostile`` or ``unsupported_mode``.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return type(self), (self.kind, str(self))


class ShardError(InputError):
    """A shard cannot be read as what its name says: damaged Parquet, a hostile or cut tar."""


class StoreError(FCNError, OSError):
    """The object store or disk did not do its part: unreachable, refused, timed out, full.

    ``transient``: the same request may succeed later (throttled, reset, stalled, damaged on the
    way). Otherwise somebody has to act first: access is denied, the disk is full.
    """

    def __init__(self, text: str, *, transient: bool = False) -> None:
        super().__init__(text)
        self.transient = transient


class ChangedError(StoreError):
    """An object is no longer the version that was planned."""


class ForeignObjectError(StoreError):
    """An object that this project did not write stands where a result belongs."""


class ClusterError(FCNError, RuntimeError):
    """The Ray cluster cannot run the plan: too few logical CPUs, no GPU, lost workers."""


class IncompleteError(FCNError, RuntimeError):
    """The job ended, but some of its input has no result; what was finished is kept."""


class NotPublishedError(FCNError, RuntimeError):
    """The job ended, but what it made is not fit to be published; it is kept."""


def first_sentence(error: BaseException) -> str:
    """What somebody else's error says, without what follows it, which is of their own options."""
    return (str(error).strip() or repr(error)).splitlines()[0].split(". ")[0]


def as_data(error: FCNError) -> dict[str, str]:
    """An error as two texts that can leave a worker without becoming a traceback."""
    return {"error_type": type(error).__name__, "error": str(error)}


def from_data(row: Mapping[str, str]) -> FCNError:
    """The error that `as_data` described, of its own kind where that needs only a text.

    Whether a StoreError was transient is not in the two texts; the one made here is not.
    """
    kind = globals().get(row["error_type"], InputError)
    if not (isinstance(kind, type) and issubclass(kind, FCNError)) or kind is ImageError:
        kind = InputError
    return kind(row["error"])
