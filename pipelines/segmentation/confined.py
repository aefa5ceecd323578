"""A child process that does one thing at a time, and is ended when that takes too much.

Its time is watched, and where there is a /proc also its memory. What became of it is told by a
`ChildError`: a signal by its name, a limit by its size.
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pipelines.segmentation.messages import Message, pack, unpack

LOOK_SECONDS = 0.02
"""Between two looks at the child's memory."""

END_SECONDS = 10.0
"""A killed process is gone long before that, unless the machine itself is stuck."""

FREE_SHARE = 0.8
"""Of the memory that is free, the most a child gets: beyond it the machine chooses whom to kill."""

FOREIGN = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
"""Signals that come from somebody else: an operator, a system without memory, a dying node."""

_CHUNK = 1 << 20
_ERROR_TAIL = 2000


class ChildError(RuntimeError):
    """A child did not answer.

    ``foreign`` says that somebody else may have ended it; ``fresh``, that it had done nothing
    before, so that no earlier work can have broken it.
    """

    def __init__(
        self, kind: Literal["crash", "oom", "timeout"], text: str, *, foreign: bool, fresh: bool
    ) -> None:
        super().__init__(text)
        self.kind = kind
        self.foreign = foreign
        self.fresh = fresh


class Child:
    """A process that reads messages from its standard input and answers each on its output.

    A message with a ``phase`` is no answer yet, and says what the child does now; one with
    ``raised`` is an exception's text. After a ChildError the process is gone.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        self.pid = self._process.pid
        streams = self._process.stdin, self._process.stdout, self._process.stderr
        self._stdin, self._stdout, self._stderr = (_descriptor(stream) for stream in streams)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ, self._receive)
        self._selector.register(self._stderr, selectors.EVENT_READ, self._receive_errors)
        self._to_send = memoryview(b"")
        self._received = bytearray()
        self._errors = b""
        self._ended = False
        self._phase = ""
        self._idle = 0  # bytes of memory before it did anything
        self._grown = 0  # bytes beyond that, at the last look
        self._done = 0

    def start(self, head: dict[str, Any], *, seconds: float) -> None:
        """Give the child what it needs for all its work. Raises ChildError."""
        self._ask(pack(head), "while starting", seconds, None)
        self._idle = _memory(self.pid)

    def ask(
        self, head: dict[str, Any], body: bytes, *, phase: str, seconds: float, growth: int
    ) -> Message:
        """The child's answer. Raises ChildError.

        It may take ``seconds`` and grow by ``growth`` bytes, or by most of what is free if that is
        less. ``phase`` says what it does with the request at first, such as ``while decoding``.
        """
        free = _free_memory()
        if free is not None:
            growth = min(growth, int(free * FREE_SHARE))
        answer = self._ask(pack(head, body), phase, seconds, growth)
        self._done += 1
        return answer

    def close(self) -> None:
        """End the process, which has nothing to lose; a second time does nothing."""
        self._process.kill()
        self._selector.close()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
        self._process.wait(END_SECONDS)

    def _ask(self, request: bytes, phase: str, seconds: float, growth: int | None) -> Message:
        self._receive_errors()  # of what came before
        self._errors, self._phase, self._grown = b"", phase, 0
        self._to_send = memoryview(request)
        self._selector.register(self._stdin, selectors.EVENT_WRITE, self._send)
        try:
            return self._wait(seconds, growth)
        except BaseException:
            self.close()
            raise

    def _wait(self, seconds: float, growth: int | None) -> Message:
        """Send the request, receive the answer, and watch the limits meanwhile."""
        end = time.monotonic() + seconds
        while True:
            for key, _ in self._selector.select(LOOK_SECONDS):
                key.data()
            answer = self._answer()
            if answer is not None:
                return answer
            if self._ended:
                raise self._fate(growth)
            if time.monotonic() > end:
                raise self._error("timeout", f"no end after {seconds:g} s")
            has = _memory(self.pid)
            if has:  # one that is ending has none any more, though its output is open still
                self._grown = has - self._idle
            if growth is not None and self._grown > growth:
                raise self._error("oom", f"more than {growth >> 20} MiB of memory")

    def _answer(self) -> Message | None:
        """The answer, if it is there; phases on the way are noted."""
        try:
            while (message := unpack(self._received)) is not None:
                head, _ = message
                if "raised" in head:
                    kind: Literal["oom", "crash"] = "oom" if head["memory"] else "crash"
                    raise self._error(kind, head["raised"])
                if "phase" not in head:
                    return message
                self._phase = head["phase"]
        except (ValueError, TypeError, KeyError) as error:
            raise self._error("crash", f"an answer that is none ({error})") from error
        return None

    def _fate(self, growth: int | None) -> ChildError:
        """Why there is no child any more."""
        try:
            status = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return self._error("crash", "it closed its output")
        if status >= 0:
            return self._error("crash", f"exit status {status}")
        name = _signal_name(-status)
        foreign = -status in FOREIGN
        if foreign and growth is not None and self._grown > growth / 2:
            # The system's own killer came before our limit.
            text = f"{name} from outside at {self._grown >> 20} MiB of memory"
            return self._error("oom", text, foreign=True)
        return self._error("crash", name + " from outside" * foreign, foreign=foreign)

    def _error(
        self, kind: Literal["crash", "oom", "timeout"], text: str, *, foreign: bool = False
    ) -> ChildError:
        self._receive_errors()
        lines = self._errors.decode(errors="replace").strip().splitlines()
        said = f" ({lines[-1].strip()[:200]})" if lines else ""
        return ChildError(
            kind, f"{text} {self._phase}{said}", foreign=foreign, fresh=self._done == 0
        )

    def _send(self) -> None:
        with contextlib.suppress(BlockingIOError):
            try:
                sent = os.write(self._stdin, self._to_send[:_CHUNK])
            except BrokenPipeError:  # it is dead, which its output will tell
                sent = len(self._to_send)
            self._to_send = self._to_send[sent:]
        if not self._to_send:
            self._selector.unregister(self._stdin)

    def _receive(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._stdout, _CHUNK)
            self._received += data
            if not data:
                self._ended = True
                self._selector.unregister(self._stdout)

    def _receive_errors(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._stderr, _CHUNK)
            self._errors = (self._errors + data)[-_ERROR_TAIL:]
            if not data and self._stderr in self._selector.get_map():
                self._selector.unregister(self._stderr)


def _descriptor(stream: Any) -> int:
    """The stream's descriptor, from which reads return at once."""
    number: int = stream.fileno()
    os.set_blocking(number, False)
    return number


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _memory(pid: int) -> int:
    """Bytes of memory that a process has, 0 where there is no /proc or it is dead."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * resource.getpagesize()


def _free_memory() -> int | None:
    """Bytes of memory that the machine can still give, None where there is no /proc."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(found[0]) << 10 if found else None
