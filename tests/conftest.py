"""Fixtures that several test files share: an S3 server, a Ray cluster, the real data."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.seaweed import Seaweed

# Several test processes share few cores: threads that wait actively take them from each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Times say nothing on a machine that does other work as well.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors, but not those that Ray gives itself about its own code."""
    for kind in ("DeprecationWarning", "FutureWarning"):
        config.addinivalue_line("filterwarnings", rf"ignore::{kind}:ray(\..*)?")


@pytest.fixture(scope="session")
def s3() -> Iterator[Seaweed]:
    """A real S3 server whose address is in the AWS variables; ``s3.uri()`` is a fresh prefix."""
    server = Seaweed()
    patch = pytest.MonkeyPatch()
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        patch.delenv(name, raising=False)
    for name, value in server.environment.items():
        patch.setenv(name, value)
    yield server
    patch.undo()
    server.stop()


@pytest.fixture(scope="session")
def ray_session(s3: Seaweed) -> Iterator[None]:
    """One local Ray cluster with eight logical CPUs, whose workers know the S3 server."""
    import ray

    folder = tempfile.mkdtemp(prefix="fcnr")  # short: Ray's sockets lie in it
    ray.init(
        address="local",
        num_cpus=8,
        _node_ip_address="127.0.0.1",
        include_dashboard=False,
        object_store_memory=300_000_000,
        log_to_driver=False,
        _temp_dir=folder,
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; skips the test where it is absent."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real data is not at {folder}")
    return folder
