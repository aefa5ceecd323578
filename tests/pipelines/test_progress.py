"""Lines from workers reach the driver, each once and in order, and leave nothing behind."""

from __future__ import annotations

import time

import pytest

from pipelines.errors import InputError, as_data, from_data
from pipelines.progress import NAMESPACE, POLL_SECONDS, Relay, relay


def kept_of(handle: Relay) -> list[bytes]:
    from ray.experimental import internal_kv

    return internal_kv._internal_kv_list(handle.name, namespace=NAMESPACE)


@pytest.mark.ray
def test_lines_of_other_processes_are_shown_once_in_order_and_by_their_own_driver(ray_session):
    import ray

    @ray.remote(num_cpus=0)
    def say(handle, first):
        for number in range(first, first + 50):
            handle.say(f"line {number} – ü")

    shown: list[str] = []
    others: list[str] = []
    with relay(shown.append) as handle, relay(others.append) as other:
        ray.get(say.remote(handle, 0))
        until = time.monotonic() + 20 * POLL_SECONDS
        while len(shown) < 50 and time.monotonic() < until:
            time.sleep(POLL_SECONDS / 10)
        assert len(shown) == 50  # while the work goes on
        ray.get([say.remote(other, 0), say.remote(handle, 50)])
    assert shown == [f"line {number} – ü" for number in range(100)]
    assert others == shown[:50]
    assert kept_of(handle) == kept_of(other) == []
    handle.say("too late")
    assert len(shown) == 100
    handle.forget()


@pytest.mark.ray
def test_a_refusal_is_known_in_every_process_until_the_end(ray_session):
    import ray

    error = InputError("image 7 is no image; remove it")

    @ray.remote(num_cpus=0)
    def refuse(handle):
        before = handle.refusal()
        handle.refuse(as_data(error))
        return before

    with relay(pytest.fail) as handle:
        assert ray.get(refuse.remote(handle)) == {}
        assert str(from_data(handle.refusal())) == str(error)
        assert ray.get(refuse.remote(handle)) == as_data(error)
        assert handle.take() == []
    assert kept_of(handle) == []
    assert handle.refusal() == {}


@pytest.mark.ray
def test_after_an_error_the_last_lines_are_shown_and_nothing_is_left(ray_session):
    handles: list[Relay] = []
    shown: list[str] = []

    def fail() -> None:
        with relay(shown.append) as handle:
            handles.append(handle)
            handle.say("a line")
            handle.refuse(as_data(InputError("bad")))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert kept_of(handles[0]) == []
    assert shown == ["a line"]  # what was said last says why
