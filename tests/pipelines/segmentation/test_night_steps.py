"""Whole nights, cut off, raced, delayed and lied to at every step. No Ray: see `support/nights.py`.

Rows 3, 5, 22, 23, 34 and 35 of docs/failures.md; test_night_inputs.py has those of the input.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import count

import numpy as np
import pytest

from pipelines import storage
from pipelines.errors import NotFoundError, StoreError
from pipelines.masks import reader, snapshots
from pipelines.segmentation.result import SegmentResult
from pipelines.storage import deadline, s3_client
from tests.support.nights import Killed, World, every_write, expected, mask
from tests.support.proxy import FaultProxy
from tests.support.tiny import save_checkpoint

SEEDS = {f"{seed}.png": seed for seed in range(5)}
LATE = {"late.png": 9}

WRITES = 9
"""Of a night that makes three parts: generation, input and plan before, then the parts, then the
snapshot, the pointer and the run's record."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(folder, seed=1)
    return folder


@pytest.fixture(scope="module")
def masks(checkpoint):
    """The mask that every picture has, by its key."""
    found = {key: expected(checkpoint, seed) for key, seed in (SEEDS | LATE).items()}
    assert len(np.unique(np.stack(list(found.values())))) > 1
    return found


def filled(root, checkpoint):
    world = World(root, checkpoint)
    for key, seed in SEEDS.items():
        world.put(key, seed)
    return world


@pytest.fixture
def world(tmp_path, checkpoint, stage):
    return filled(storage.parse_uri(str(tmp_path)), checkpoint)


def assert_as_in_peace(world, masks, keys):
    """Every record once, with its mask, and nothing else anywhere."""
    rows = world.rows()
    assert rows.keys() == set(keys)
    for key, row in rows.items():
        assert np.array_equal(mask(row), masks[key]), key
    assert world.wrong() == {}


def test_killed_after_any_write_the_same_command_completes_the_night(
    tmp_path, checkpoint, stage, masks
):
    for number in count(1):
        world = filled(storage.parse_uri(str(tmp_path / str(number))), checkpoint)

        def die(now, uri, *, done, number=number):
            if done and now == number:
                raise Killed

        with every_write(die), suppress(Killed):
            world.night()
            break
        stood = world.objects("data", "_fcn/snap", "_fcn/plan")
        parts = sum(name.startswith("data/") for name in stood)
        with suppress(NotFoundError):  # nothing is published yet
            assert reader.open_masks(world.uri).count_rows() == len(SEEDS)
        stage.tried.clear()
        result = world.night()
        assert (result.snapshot, result.published, result.already) == (1, True, parts)
        assert len(stage.tried) == 3 - parts
        assert stood.items() <= world.objects("data", "_fcn").items()
        assert len(world.objects("_fcn/snap")) == 1
        assert_as_in_peace(world, masks, SEEDS)
    assert number == WRITES + 1


def test_a_night_that_runs_whole_between_two_writes_of_another_is_not_undone(
    tmp_path, checkpoint, stage, masks
):
    for number in range(1, WRITES + 1):
        world = filled(storage.parse_uri(str(tmp_path / str(number))), checkpoint)
        inner: list[SegmentResult | None] = []

        def overtake(now, uri, *, done, number=number, world=world, inner=inner):
            if not done and now == number and not inner:
                inner.append(None)
                world.put("late.png", LATE["late.png"])
                inner[0] = world.night()

        with every_write(overtake):
            outer = world.night()
        for result in (outer, inner[0]):
            assert result is not None
            assert result.complete
            assert result.published
        newest = world.newest(outer.generation)
        assert world.published() == newest.sequence
        assert len(world.objects("data")) == len(newest.parts)
        assert len(world.objects("_fcn/run")) == 2
        assert_as_in_peace(world, masks, SEEDS | LATE)


@contextmanager
def clock_off_by(days):
    """Shift the wall clock of this process; files keep the times that the system gives them."""
    right = time.time

    class Datetime(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(days=days)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: right() + days * 86_400)
        patch.setattr(snapshots, "datetime", Datetime)
        yield


def contents(world):
    """What must not depend on a clock: all names but those of runs, and the bytes of most."""
    found = {}
    for name in world.objects("data", "_fcn"):
        if name.startswith(("data/", "_fcn/plan", "_fcn/gen", "_fcn/input")):
            found[name] = storage.read_bytes(storage.join(world.uri, name))
        elif not name.startswith("_fcn/run"):
            found[name] = b""
    return found


def test_nights_under_wrong_clocks_make_the_same_names_and_bytes(
    tmp_path, checkpoint, stage, masks
):
    world = filled(storage.parse_uri(str(tmp_path / "a")), checkpoint)
    world.night()
    reference = contents(world)
    other = World(storage.parse_uri(str(tmp_path / "a")), checkpoint, output="midnight")

    def die(now, uri, *, done):
        if done and now == 5:  # two parts stand
            raise Killed

    with clock_off_by(days=1), every_write(die), suppress(Killed):
        other.night()
    for days in (-1, 1):
        stage.tried.clear()
        with clock_off_by(days):
            result = other.night()
        assert result.complete
        assert len(stage.tried) == (1 if days == -1 else 0)
    assert contents(other) == reference
    made = other.newest(result.generation).created_at
    assert made[:10] != datetime.now(UTC).isoformat()[:10], "the clock was right"
    assert_as_in_peace(other, masks, SEEDS)


@pytest.mark.s3
@pytest.mark.parametrize("held", ["/data/", "/_fcn/snap/", "/_fcn/HEAD.json"])
def test_a_write_of_a_dead_night_that_arrives_late_changes_nothing(
    s3, checkpoint, stage, masks, monkeypatch, held
):
    with FaultProxy(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        world = filled(s3.uri("zombie"), checkpoint)
        patch = pytest.MonkeyPatch()

        def hold(now, uri, *, done):
            if held in uri and not done and not proxy.faults:
                patch.setattr(deadline, "SECONDS", 1.0)
                patch.setattr(s3_client, "READ_SECONDS", 0.4)
                s3_client._clients.clear()
                s3_client.client()  # takes a second to make on a busy machine
                proxy.faults = [("PUT", "hold")] * 20
            elif proxy.faults:
                raise Killed  # the first write after it

        with every_write(hold), pytest.raises((Killed, StoreError)):
            world.night()
        patch.undo()
        s3_client._clients.clear()
        proxy.faults = []
        result = world.night()
        assert result.complete
        assert result.published
        before = world.objects("data", "_fcn")
        proxy.release()
        give_up = time.monotonic() + 20
        while len(proxy.late) < proxy.injected["hold"] and time.monotonic() < give_up:
            time.sleep(0.02)
        assert proxy.late == [412] * proxy.injected["hold"]
        assert proxy.injected["hold"] >= 1
        assert world.objects("data", "_fcn") == before
        assert_as_in_peace(world, masks, SEEDS)
    s3_client._clients.clear()


@pytest.mark.parametrize("when", ["before the night", "while its unit is done"])
def test_a_foreign_object_at_a_parts_name_ends_the_night_and_is_left_alone(
    world, tmp_path, checkpoint, stage, masks, when
):
    elsewhere = World(world.root, checkpoint, output="elsewhere")
    elsewhere.night()
    name = sorted(elsewhere.objects("data"))[1]
    junk = storage.join(world.uri, name)

    def put(moment, row):
        if moment == "commit" and storage.stat(junk) is None:
            storage.create(junk, b"junk")

    if when == "before the night":
        storage.create(junk, b"junk")
    else:
        stage.before = put
    for _ in range(2):
        with pytest.raises(StoreError, match=f"{junk} .*move it away"):
            world.night()
        assert storage.read_bytes(junk) == b"junk"
        assert world.published() is None
        stage.before = lambda *_: None
    assert world.objects("data").keys() == elsewhere.objects("data").keys()
    world.delete(junk)
    stage.tried.clear()
    assert world.night().published
    assert len(stage.tried) == 1
    assert_as_in_peace(world, masks, SEEDS)
