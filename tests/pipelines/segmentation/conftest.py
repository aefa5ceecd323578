"""What tests of whole nights share."""

from __future__ import annotations

import pytest

from pipelines import storage
from tests.support.nights import Stage


@pytest.fixture
def stage(monkeypatch):
    """The job's stages, run in this process."""
    return Stage().install(monkeypatch)


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.s3)])
def place(request, tmp_path):
    """A root on a disk or in a store, as a URI."""
    if request.param == "disk":
        return storage.parse_uri(str(tmp_path))
    return request.getfixturevalue("s3").uri("night")
