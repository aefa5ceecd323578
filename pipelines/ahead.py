"""An iterator whose items a thread makes before they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Ahead(Generic[Item]):
    """The items of ``items``, in order, made by a thread while there is ``room`` for one more.

    Room is taken by every item that is being made, ready, or in use: whoever takes one says with
    `free` when its room may be used again. What ``items`` raises is raised where its item would
    have been taken, and from then on. The thread keeps no process alive.
    """

    def __init__(self, items: Iterable[Item], room: int) -> None:
        self._room = threading.Semaphore(room)
        self._made: SimpleQueue[tuple[Item] | BaseException] = SimpleQueue()
        self.closed = False
        """Whether no further item is to be made."""
        threading.Thread(target=self._make, args=(iter(items),), name="ahead", daemon=True).start()

    def _make(self, items: Iterator[Item]) -> None:
        try:
            while self._room.acquire() and not self.closed:
                self._made.put((next(items),))
        except BaseException as error:  # noqa: BLE001  (raised again where the item is taken)
            self._made.put(error)

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        """The next item, waited for; its room is still taken."""
        made = self._made.get()
        if isinstance(made, BaseException):
            self._made.put(made)
            raise made
        return made[0]

    def free(self) -> None:
        """The room of an item may be used again."""
        self._room.release()

    def close(self) -> None:
        """No further item is made."""
        self.closed = True
        self._room.release()


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The items, the next one being made while one is in use."""
    made = Ahead(items, 1)
    try:
        for item in made:
            made.free()
            yield item
    finally:
        made.close()
