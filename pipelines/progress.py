"""Lines of progress from workers to the driver, free of Ray's own log noise.

They lie in the key-value store of Ray's control service until the driver fetches them. An actor
that held them would be one more process that wakes a hundred times a second to look for signals, as
each of Ray's does, and on few cores it is the training that stands still meanwhile.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import ray
from ray.experimental import internal_kv

POLL_SECONDS = 0.5
LOST_SECONDS = 10.0
"""After which a control service that does not answer is not waited for at the end."""

NAMESPACE = "fcn-nightly"


@dataclass(frozen=True)
class Relay:
    """What workers get: it can be pickled, and is of use in any process of the cluster."""

    name: str
    """Unlike that of any other relay of the cluster."""

    def say(self, line: str) -> None:
        """Show a line on the driver, in the order of clocks. If Ray cannot take it it is lost."""
        with suppress(ray.exceptions.RayError):
            self._put(f"line/{time.time_ns():020}", line)

    def refuse(self, error: dict[str, str]) -> None:
        """Leave the refusal of bad input, for `refusal` in every process. Raises RayError."""
        self._put("refusal", json.dumps(error))

    def refusal(self) -> dict[str, str]:
        """What was last left by `refuse`, or nothing. Raises RayError."""
        found = internal_kv._internal_kv_get(f"{self.name}/refusal", namespace=NAMESPACE)
        refused: dict[str, str] = json.loads(found or "{}")
        return refused

    def take(self) -> list[str]:
        """The lines that were said, each once. Raises RayError."""
        lines = []
        for key in sorted(internal_kv._internal_kv_list(f"{self.name}/line/", namespace=NAMESPACE)):
            lines.append(internal_kv._internal_kv_get(key, namespace=NAMESPACE).decode())
            internal_kv._internal_kv_del(key, namespace=NAMESPACE)
        return lines

    def forget(self) -> None:
        """Leave nothing in the store. Raises RayError."""
        internal_kv._internal_kv_del(f"{self.name}/", del_by_prefix=True, namespace=NAMESPACE)

    def _put(self, key: str, value: str) -> None:
        internal_kv._internal_kv_put(f"{self.name}/{key}", value, namespace=NAMESPACE)


@contextmanager
def relay(show: Callable[[str], None]) -> Iterator[Relay]:
    """Give workers a handle whose lines end up in ``show`` on the driver.

    Lines that workers say after the block has ended are never shown.
    """
    handle, ended = Relay(uuid.uuid4().hex), threading.Event()

    def fetch() -> None:
        for line in handle.take():
            show(line)

    def poll() -> None:
        while not ended.wait(POLL_SECONDS):
            with suppress(ray.exceptions.RayError):  # if it lasts, the driver will say why
                fetch()

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield handle
    finally:
        ended.set()
        thread.join(LOST_SECONDS)
        if not thread.is_alive():
            with suppress(ray.exceptions.RayError):  # lost lines are no reason to lose the work
                fetch()
                handle.forget()
