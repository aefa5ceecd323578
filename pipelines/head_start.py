"""An iterator whose first item is being made while its user does something else."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from threading import Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
_END = object()


class HeadStart(Generic[Item]):
    """The items of ``items``, in order; a thread asks for the first one at once.

    Only the first: what ``items`` fetches ahead by itself is all that lies ready. What asking for
    it raises is raised where the first item is taken. If nobody takes it, the thread keeps no
    process alive.
    """

    def __init__(self, items: Iterator[Item]) -> None:
        self._items = items
        self._first: Future[object] = Future()
        Thread(target=self._ask, name="head-start", daemon=True).start()

    def _ask(self) -> None:
        try:
            self._first.set_result(next(self._items, _END))
        except BaseException as error:  # noqa: BLE001  (raised again where the item is taken)
            self._first.set_exception(error)

    def __iter__(self) -> Iterator[Item]:
        """Wait for the first item, then go on with the others in the caller's thread."""
        first = self._first.result()
        if first is not _END:
            yield first  # type: ignore[misc]
            yield from self._items
