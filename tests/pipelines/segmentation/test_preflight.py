"""What is wrong is said before the night starts, quickly, in one line, with nothing left behind."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import namedtuple

import pytest
import ray
from PIL import Image

from fcn_model.errors import CheckpointError
from pipelines import storage
from pipelines.errors import ClusterError, InputError, NotFoundError, StoreError
from pipelines.segmentation import preflight
from pipelines.segmentation.preflight import check, check_cluster, check_space
from pipelines.segmentation.settings import SegmentConfig
from pipelines.sources import open_source
from tests.support.proxy import FaultProxy
from tests.support.tiny import save_checkpoint

SECONDS = 10.0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(folder)
    return str(folder)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def root(request, tmp_path):
    if request.param == "local":
        return storage.parse_uri(str(tmp_path / "root"))
    return request.getfixturevalue("s3").uri()


def _archive(root, images=2):
    file = io.BytesIO()
    Image.new("RGB", (8, 6)).save(file, "PNG")
    for index in range(images):
        storage.create(storage.join(root, "in", f"{index}.png"), file.getvalue())
    return open_source(storage.join(root, "in"))


def _everything(root):
    """Names, versions and, on a disk, folders: whatever one could leave behind."""
    found = {ref for ref, _ in storage.list_with_ages(root, hidden=True)}
    if storage.is_s3(root):
        return found, set()
    return found, {path for path, _, _ in os.walk(storage.local_path(root))}


def _refusal(kind, config, source):
    """The one line with which the preflight ends, which must come quickly."""
    started = time.monotonic()
    with pytest.raises(kind) as caught:
        check(config, source)
    assert time.monotonic() - started < SECONDS
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("existing", [False, True])
def test_a_run_that_can_start_is_told_what_was_found_and_nothing_is_left(
    root, checkpoint, existing
):
    source = _archive(root)
    if existing:
        storage.create(storage.join(root, "out", "data", "x"), b"mine")
    before = _everything(root)
    ready = check(SegmentConfig(checkpoint=checkpoint, output=storage.join(root, "out")), source)
    assert [made.what for made in ready.checks] == [*("read", "checkpoint", "place", "write")]
    assert len(ready.model.classes) == 5
    assert _everything(root) == before


@pytest.mark.s3
@pytest.mark.parametrize(
    ("key", "secret", "wanted"),
    [
        ("testwriter", "wrong", "read .*access denied.*SignatureDoesNotMatch"),
        ("nobody", "wrong", "read .*access denied.*InvalidAccessKeyId"),
        ("testreader", "testreader-secret", "create .*access denied"),
    ],
)
def test_a_key_without_the_rights_is_refused(s3, monkeypatch, checkpoint, key, secret, wanted):
    root = s3.uri()
    source = _archive(root)
    before = _everything(root)
    config = SegmentConfig(checkpoint=checkpoint, output=storage.join(root, "out"))
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        with pytest.raises(StoreError, match=wanted):
            check(config, source)
        text = _refusal(StoreError, config, source)
    assert secret not in text
    assert _everything(root) == before


@pytest.mark.s3
def test_a_bucket_that_does_not_exist_is_the_users_affair(s3, checkpoint):
    config = SegmentConfig(checkpoint=checkpoint, output="s3://no-such-bucket/out")
    assert "'no-such-bucket' does not exist" in _refusal(NotFoundError, config, _archive(s3.uri()))


@pytest.mark.s3
def test_a_store_that_creates_twice_is_refused(s3, monkeypatch, checkpoint):
    root = s3.uri()
    source = _archive(root)
    before = _everything(root)
    config = SegmentConfig(checkpoint=checkpoint, output=storage.join(root, "out"))
    with FaultProxy(s3.endpoint, seed=0, rate=1.0, kinds=("strip",)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        text = _refusal(StoreError, config, source)
        assert proxy.injected["strip"]
    assert "If-None-Match" in text
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    assert _everything(root) == before


@pytest.mark.s3
@pytest.mark.parametrize("listens", [False, True])
def test_a_store_that_does_not_answer_is_not_waited_for(s3, monkeypatch, checkpoint, listens):
    source = _archive(s3.uri())
    config = SegmentConfig(checkpoint=checkpoint, output=s3.uri())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        if not listens:
            listener.close()
        assert address in _refusal(StoreError, config, source)


@pytest.mark.parametrize(
    ("found", "actors", "nodes", "output", "wanted"),
    [
        ({"CPU": 2.0}, 2, 1, "/out", "need 3 logical CPUs, the cluster has 2"),
        ({"CPU": 9.0, "GPU": 1.0}, 2, 1, "/out", "a GPU each were asked for, there are 1"),
        ({"CPU": 3.0}, 2, 1, "/out", "the network runs on CPUs"),
        ({"CPU": 3.0, "GPU": 2.0}, 2, 1, "/out", "2 GPUs for 2 actors"),
        ({"CPU": 3.0}, 2, 2, "/out", "all 2 nodes must share"),
        ({"CPU": 3.0}, 2, 2, "s3://data/out", "the network runs on CPUs"),
    ],
)
def test_the_cluster_must_have_what_the_actors_take(
    monkeypatch, checkpoint, found, actors, nodes, output, wanted
):
    monkeypatch.setattr(ray, "cluster_resources", lambda: found)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}] * nodes + [{"Alive": False}])
    config = SegmentConfig(checkpoint=checkpoint, output=output, num_actors=actors)
    if "asked for" in wanted or "need" in wanted:
        with pytest.raises(ClusterError, match=wanted):
            check_cluster(config)
    else:
        text = check_cluster(config).found
        assert wanted in text
        assert ("share" in text) is ("share" in wanted)


@pytest.mark.parametrize(
    ("change", "kind", "wanted"),
    [
        ({"output": "{root}/in/out"}, InputError, "lies inside the input"),
        ({"output": "/a/runtime_resources/working_dir_files/b"}, InputError, "which Ray deletes"),
        ({"task": "geo"}, InputError, "leave --task out"),
        ({"checkpoint": "{root}/in"}, NotFoundError, "is no checkpoint directory"),
        ({"checkpoint": "{root}/broken"}, CheckpointError, "checkpoint file://"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_is_written(
    tmp_path, checkpoint, monkeypatch, change, kind, wanted
):
    root = storage.parse_uri(str(tmp_path))
    source = _archive(root)
    save_checkpoint(tmp_path / "broken")
    weights = next((tmp_path / "broken").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    monkeypatch.setattr(preflight, "probe", lambda output: pytest.fail("it wrote"))
    made = {name: text.format(root=tmp_path) for name, text in change.items()}
    given = {"checkpoint": checkpoint, "output": str(tmp_path / "out")} | made
    assert wanted in _refusal(kind, SegmentConfig(**given), source)


def test_objects_that_went_away_since_the_listing_do_not_end_the_night(tmp_path, checkpoint):
    source = _archive(storage.parse_uri(str(tmp_path)), images=3)
    (tmp_path / "in/0.png").unlink()
    (tmp_path / "in/1.png").write_bytes(b"another")
    config = SegmentConfig(checkpoint=checkpoint, output=str(tmp_path / "out"))
    assert "2.png can be read" in check(config, source).checks[0].found
    (tmp_path / "in/2.png").unlink()
    assert "gone" in check(config, source).checks[0].found


def test_a_disk_without_room_for_the_masks_is_refused(tmp_path, monkeypatch):
    source = _archive(storage.parse_uri(str(tmp_path)))
    size = sum(ref.size for unit in source.units for ref in unit.objects)
    assert preflight.input_bytes([*source.units, *source.units]) == size  # each object once
    usage = namedtuple("usage", "total used free")
    missing = storage.join(source.uri, "../not/yet/there")
    for free, wanted, fits in [
        (preflight.SPARE_BYTES, None, False),
        (preflight.SPARE_BYTES + size, None, True),
        (preflight.SPARE_BYTES + 10**9, 10**9, True),
        (preflight.SPARE_BYTES + 10**9, 10**9 + 1, False),
    ]:
        monkeypatch.setattr(shutil, "disk_usage", lambda path, f=free: usage(0, 0, f))
        if fits:
            assert "needed" in check_space(missing, source.units, wanted=wanted).found
        else:
            with pytest.raises(StoreError, match="free; the masks of 1 units"):
                check_space(missing, source.units, wanted=wanted)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: pytest.fail("asked"))
    check_space("s3://data/out", source.units, wanted=10**15)


def test_neither_the_driver_nor_the_workers_that_decode_and_encode_wait_for_torch():
    code = """
import sys
import pipelines.segmentation.night, pipelines.segmentation.preflight
assert "torch" not in sys.modules, "torch"
assert "ray.train" not in sys.modules, "ray.train"
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
