"""What a child process may do, and what is said of it when it does more.

The children here speak the protocol with nothing but the standard library, and start at once.
"""

from __future__ import annotations

import os
import re
import sys
import time

import pytest

from pipelines.segmentation import confined
from pipelines.segmentation.confined import Child, ChildError
from pipelines.segmentation.messages import Message

PRELUDE = """
import json, os, signal, struct, sys, time
def read():
    _, head, body = struct.unpack(">4sIQ", sys.stdin.buffer.read(16))
    return json.loads(sys.stdin.buffer.read(head)), sys.stdin.buffer.read(body)
def answer(head, body=b""):
    text = json.dumps(head).encode()
    sys.stdout.buffer.write(struct.pack(">4sIQ", b"fcn1", len(text), len(body)) + text + body)
    sys.stdout.buffer.flush()
read(); answer({})
head, body = read()
"""

MIB = 1 << 20


def child(code: str) -> Child:
    """A started child that runs ``code`` on its first request."""
    made = Child([sys.executable, "-I", "-S", "-c", PRELUDE + code], os.environ)
    made.start({}, seconds=30)
    return made


def ask(asked: Child, body: bytes = b"", *, seconds: float = 30) -> Message:
    return asked.ask({"a": 1}, body, phase="while working", seconds=seconds, growth=64 * MIB)


def test_large_messages_pass_unchanged_while_the_child_floods_standard_error():
    body = os.urandom(7 * MIB)
    echo = child("""
sys.stderr.write("x" * 5_000_000)
answer({"phase": "further on"})
answer({"got": head}, body)
""")
    try:
        assert ask(echo, body) == ({"got": {"a": 1}}, body)
    finally:
        echo.close()


GROWS = """
kept = []
for _ in range(500):
    kept.append(bytearray(b"x") * (8 << 20))
    time.sleep(0.002)
answer({})
"""

DEATHS = {
    "os.kill(os.getpid(), signal.SIGSEGV)": ("crash", False, "SIGSEGV while working"),
    "sys.stderr.write('free(): invalid size\\n'); sys.stderr.flush(); os.abort()": (
        "crash",
        False,
        r"SIGABRT while working \(free\(\): invalid size\)",
    ),
    "os.kill(os.getpid(), signal.SIGKILL)": ("crash", True, "SIGKILL from outside while working"),
    "sys.exit(3)": ("crash", False, "exit status 3 while working"),
    "answer({'phase': 'further on'}); os._exit(0)": ("crash", False, "exit status 0 further on"),
    "answer({'raised': 'MemoryError: no', 'memory': True})": (
        "oom",
        False,
        "MemoryError: no while working",
    ),
    "os.write(1, bytes(100)); time.sleep(60)": ("crash", False, "an answer that is none"),
    "os.close(1); time.sleep(60)": ("crash", False, "it closed its output while working"),
    "time.sleep(60)": ("timeout", False, "no end after 1 s while working"),
    "os.kill(os.getpid(), signal.SIGSTOP)": ("timeout", False, "no end after 1 s while working"),
    GROWS: ("oom", False, "more than 64 MiB of memory while working"),
}


@pytest.mark.parametrize("code", DEATHS)
def test_each_end_of_a_child_has_its_kind_and_a_text_and_leaves_no_process(code, monkeypatch):
    monkeypatch.setattr(confined, "END_SECONDS", 1.0)
    kind, foreign, text = DEATHS[code]
    ended = child(code)
    with pytest.raises(ChildError) as caught:
        ask(ended, seconds=1 if kind == "timeout" else 30)
    assert (caught.value.kind, caught.value.foreign) == (kind, foreign)
    assert re.match(text, str(caught.value)), caught.value
    with pytest.raises(ProcessLookupError):
        os.kill(ended.pid, 0)


def test_a_kill_from_outside_is_laid_to_memory_if_the_child_had_much_of_it():
    code = """
kept = bytearray(b"x") * (48 << 20)
time.sleep(1)
os.kill(os.getpid(), signal.SIGKILL)
"""
    with pytest.raises(ChildError, match=r"SIGKILL from outside at \d+ MiB of memory") as caught:
        ask(child(code))
    assert (caught.value.kind, caught.value.foreign) == ("oom", True)


def test_a_child_is_fresh_until_it_has_answered_once():
    twice = child("answer({}); read(); os.abort()")
    ask(twice)
    with pytest.raises(ChildError) as caught:
        ask(twice)
    assert not caught.value.fresh
    with pytest.raises(ChildError) as caught:
        ask(child("os.abort()"))
    assert caught.value.fresh


def test_a_child_that_does_not_start_says_the_last_line_of_its_complaint():
    broken = Child([sys.executable, "-c", "import no_such_module"], os.environ)
    started = time.monotonic()
    with pytest.raises(ChildError, match=r"exit status 1 while starting \(.*no_such_module"):
        broken.start({}, seconds=60)
    assert time.monotonic() - started < 30
