"""Shards read in a process of their own, which watches its memory.

Limits are lower there than the real ones, so that little has to be made.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support import made

MEGABYTES = 50
"""What a refusal may cost."""

READ = """
import json, pathlib, sys, time
from pipelines import parquet_file, parquet_pages, storage, tar_members, thrift_walk
from pipelines.errors import ShardError
from pipelines.parquet_records import read_rows
from pipelines.storage import ObjectRef
from pipelines.tar_records import read_tar

def memory(what):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(what)).split()[1]) // 1024

def read(path):
    if path.suffix == ".tar":
        return read_tar(ObjectRef(path.as_uri(), "", 0), path.read_bytes())
    return read_rows(storage.stat(storage.parse_uri(str(path))))

tar_members.MAX_MEMBERS = 20_000
thrift_walk.MAX_KEPT = 20_000
parquet_file.MAX_READ_BYTES = 64 << 20
parquet_pages.MAX_DICTIONARY_BYTES = 8 << 20
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, started = memory("VmRSS"), time.monotonic()
    try:
        result = f"{len(read(path))} records"
    except ShardError as error:
        assert path.name in str(error)
        result = str(error).split(": ", 1)[1]
    spent = memory("VmHWM") - before, time.monotonic() - started
    print(json.dumps([path.name, result, *spent]), flush=True)
"""


def measure(folder: Path, files: dict[str, bytes]) -> dict[str, tuple[str, int, float]]:
    """Of each file what came of it, by how many megabytes memory grew, and how long it took."""
    made.fill(folder, {"0": b"", **files})  # the first file pays for what is loaded once
    command = [sys.executable, "-c", READ, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {name: (result, grown, seconds) for name, result, grown, seconds in rows[1:]}
