"""Keys and tokens stay where they were put: no log, record, report or mask holds one."""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines import storage
from pipelines.datasets.scenes import write_scenes
from tests.support import seaweed
from tests.support.tiny import save_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.s3]

ROOT = Path(__file__).parents[2]

ALLOWED, FORBIDDEN = "allowed", "forbidden"
"""Prefixes of the bucket: to the first the workers may write."""

JOBS = """
import importlib, json, os, sys
import ray
folder, steps = sys.argv[1], json.load(sys.stdin)
ray.init(
    num_cpus=4, _node_ip_address="127.0.0.1", include_dashboard=False, _temp_dir=folder,
    object_store_memory=200_000_000, log_to_driver=True,
)
codes, started = [], dict(os.environ)
for step in steps:
    os.environ.update(step["environment"])
    sys.argv = step["command"]
    try:
        importlib.import_module("jobs." + sys.argv[0]).main()
    except SystemExit as end:
        codes.append(end.code)
    os.environ.update(started)
print("codes", json.dumps(codes), flush=True)
"""
"""All jobs in one session, whose workers have the environment that this program started with."""


class Key:
    """An access key whose secret is like no other text."""

    def __init__(self, name):
        self.id = f"AKIA{name}{secrets.token_hex(4)}"
        self.secret = f"{name}-{secrets.token_hex(16)}"

    def identity(self, *actions):
        credentials = [{"accessKey": self.id, "secretKey": self.secret}]
        return {"name": self.id, "credentials": credentials, "actions": list(actions)}

    @property
    def environment(self):
        return {"AWS_ACCESS_KEY_ID": self.id, "AWS_SECRET_ACCESS_KEY": self.secret}


@pytest.fixture(scope="module")
def keys():
    return {name: Key(name) for name in ("driver", "worker", "stranger")}


@pytest.fixture(scope="module")
def store(keys):
    """A server with a key for the driver, and one for the workers that may write less."""
    identities = [
        *seaweed._IDENTITIES["identities"],
        keys["driver"].identity("Read:data", "List:data", "Write:data"),
        keys["worker"].identity("Read:data", "List:data", f"Write:data/{ALLOWED}*"),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seaweed, "_IDENTITIES", {"identities": identities})
        server = seaweed.Seaweed()
        try:
            for name, value in server.environment.items():
                patch.setenv(name, value)
            yield server
        finally:
            server.stop()


def _segment(root, checkpoint, out, *more):
    given = ["--input", f"{root}/shards", "--checkpoint", checkpoint, "--output", out]
    return ["segment", *given, *more]


def _steps(root, checkpoint, keys, listener):
    """Command, further environment and exit code of each job, right ones and all kinds of wrong."""
    scored = ["--masks", f"{root}/out/data", "--labels", f"{root}/shards", "--output"]
    right = [
        (["prepare", "--input", f"{root}/raw", "--output", f"{root}/shards"], 0),
        (_segment(root, checkpoint, f"{root}/out"), 0),
        (["evaluate", *scored, f"{root}/tables"], 0),
        (["report", *scored, f"{root}/report"], 0),
        # The driver's preflight passes, and the workers may not commit.
        (_segment(root, checkpoint, f"s3://data/{FORBIDDEN}/out"), 3),
    ]
    driver = keys["driver"]
    refused = _segment(root, checkpoint, f"{root}/other")
    wrong = [
        (refused, driver.environment | {"AWS_SECRET_ACCESS_KEY": keys["stranger"].secret}, 4),
        (refused, keys["stranger"].environment, 4),
        (refused, driver.environment | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, 4),
    ]
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    for uri in (
        f"http://{address}/x",
        f"https://{address}/x",
        f"s3://data/x?endpoint_override={address}&scheme=http",
        f"s3://user:{keys['stranger'].secret}@{address}/x",
        f"s3://{keys['stranger'].secret}@{address}/x",
        f"file://{address}/x",
    ):
        wrong += [
            (["prepare", "--input", uri, "--output", f"{root}/other"], driver.environment, 2),
            (_segment(root, checkpoint, uri), driver.environment, 2),
            (_segment(root, uri, f"{root}/other"), driver.environment, 2),
            (["report", *scored, uri], driver.environment, 2),
        ]
    return [(command, driver.environment, code) for command, code in right] + wrong


def _run(folder, steps, environment):
    done = subprocess.run(
        [sys.executable, "-c", JOBS, folder],
        input=json.dumps([{"command": step[0], "environment": step[1]} for step in steps]),
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        cwd=ROOT,
        check=False,
    )
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    codes = json.loads(done.stdout.rpartition("codes ")[2])
    assert codes == [step[2] for step in steps], text
    return text


def _contents(data):
    """Bytes, and if they are Parquet also what is compressed in them."""
    yield data
    if data[:4] == b"PAR1":
        table = pq.read_table(io.BytesIO(data))
        yield repr((table.to_pydict(), table.schema.metadata)).encode()


def _hits(needles, name, data):
    return [(name, what) for what, needle in needles.items() if needle.encode() in data]


def test_no_secret_leaves_the_environment_whatever_the_jobs_do(store, keys, tmp_path):
    root = f"s3://data/{ALLOWED}"
    write_scenes(f"{root}/raw", images=6, seed=1, split="x")
    save_checkpoint(tmp_path / "checkpoint")
    folder = tempfile.mkdtemp(prefix="fcnk")  # short: Ray's sockets lie in it
    token = secrets.token_hex(32)
    environment = {name: text for name, text in os.environ.items() if not name.startswith("RAY_")}
    environment |= {**keys["worker"].environment, "RAY_AUTH_TOKEN": token}
    environment |= {"PYTHONPATH": str(ROOT), "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            steps = _steps(root, str(tmp_path / "checkpoint"), keys, listener)
            text = _run(folder, steps, environment)
            listener.settimeout(0.1)
            with pytest.raises(TimeoutError):  # a refused URI makes no connection
                listener.accept()
        needles = {"the token": token}
        for name, key in keys.items():
            needles |= {f"the {name}'s secret": key.secret, f"the {name}'s key id": key.id}
        hits = _hits(needles, "the jobs' output", text.encode())
        logs = [path for path in Path(folder).rglob("*") if path.is_file()]
        for path in logs:
            hits += _hits(needles, str(path), path.read_bytes())
        objects = list(storage.list_with_ages("s3://data", hidden=True))
        for ref, _ in objects:
            for data in _contents(storage.read_bytes(ref.uri)):
                hits += _hits(needles, ref.uri, data)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert hits == []
    # Had there been anything to find, it would have been looked at.
    for word in ("AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId"):
        assert word in text
    assert {path.suffix for path in logs} >= {".log", ".out", ".err"}
    names = " ".join(ref.uri for ref, _ in objects)
    for part in ("_fcn/run/", "_fcn/plan/", "data/gen=", "report.html", "shards/part-"):
        assert part in names
