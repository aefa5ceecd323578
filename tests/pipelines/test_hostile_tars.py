"""Tars that hide, claim or lead out: refused by name, within bounds of memory and time."""

from __future__ import annotations

import bz2
import lzma
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.errors import ShardError
from pipelines.storage import ObjectRef
from pipelines.tar_records import read_tar
from tests.support import made
from tests.support.measured import MEGABYTES, measure

TAR = ObjectRef("s3://data/shard.tar", "etag", 0)


def member(kind: bytes, name: str = "a.jpg", size: int = 0, **fields: Any) -> bytes:
    """A tar's header by Python's tarfile, without content."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(kind: bytes, fields: dict[bytes, bytes]) -> bytes:
    """An extended header for what follows it (x) or for all that follow (g)."""
    lines = b""
    for key, value in fields.items():
        rest = b" " + key + b"=" + value + b"\n"
        length = len(rest) + len(str(len(rest)))
        length += len(str(length)) - len(str(len(rest)))
        lines += str(length).encode() + rest
    return member(kind, "x", len(lines)) + lines.ljust(-(-len(lines) // 512) * 512, b"\0")


REST = made.tar({"good.jpg": b"x"})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (bz2.compress(REST), "it is compressed with bzip2; unpack it to a plain .tar"),
        (lzma.compress(REST), "it is compressed with xz"),
        (pa.Codec("zstd").compress(REST, asbytes=True), "it is compressed with zstd"),
        (b"PK\3\4" + bytes(2000), "it is a zip archive"),
        (member(tarfile.BLKTYPE) + REST, "member 'a.jpg' is a device"),
        (member(b"V") + REST, "member 'a.jpg' is of unknown type b'V'"),
        (member(tarfile.DIRTYPE, "a", 512) + REST, "member 'a/' is a folder with 512 bytes"),
        (member(tarfile.REGTYPE, "a/", 512) + REST, "member 'a/' is a folder with 512 bytes"),
        (pax(b"g", {b"size": b"0"}) + REST, "global header at byte 512 names or sizes"),
        (pax(b"g", {b"path": b"b.jpg"}) + REST, "global header at byte 512 names or sizes"),
        (pax(b"x", {b"size": b"9" * 5000}) + REST, "extended header at byte 512 has a wrong size"),
        (pax(b"x", {b"size": b"-512"}) + REST, "extended header at byte 512 has a wrong size"),
        (pax(b"x", {b"GNU.sparse.map": b"0,1"}) + REST, "is a sparse file"),
        (pax(b"x", {b"path": b"/etc/a.jpg"}) + REST, "'/etc/a.jpg' is absolute"),
        (pax(b"x", {b"path": b"a\0b.jpg"}) + REST, "'a\\x00b.jpg' is absolute or leads out"),
        (pax(b"x", {b"path": b"\xff\xfe.jpg"}) + REST, "is not UTF-8"),
        (member(b"L", "x", 2 << 20) + bytes(2 << 20) + REST, "is 2097152 bytes long"),
        (member(b"0", "b.jpg", 1 << 40) + REST, "claims 1099511627776 bytes"),
        (made.tar([(f"a.x{n}", b"") for n in range(50)]), "['x0', 'x1', 'x10', 'x11'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "tar",
)
def test_tars_that_hide_or_claim_are_refused_by_name(data: bytes, reason: str) -> None:
    with pytest.raises(ShardError) as caught:
        read_tar(TAR, data)
    assert str(caught.value).startswith(f"{TAR.uri}: ")
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_global_comment_and_folders_are_no_records() -> None:
    """As `git archive` and `tar c .` write them."""
    data = pax(b"g", {b"comment": b"c0ffee"}) + member(tarfile.DIRTYPE, "a") + REST
    assert read_tar(TAR, data) == read_tar(TAR, REST)


def test_hostile_tars_cost_no_memory_and_write_nothing(tmp_path: Path) -> None:
    count = 25_000
    headers = b"".join(member(b"0", f"{number:07}.jpg") for number in range(count))
    escape = tmp_path / "in" / "escape.jpg"
    files = {
        "sparse.tar": member(tarfile.GNUTYPE_SPARSE, "a.jpg", 1 << 33) + REST,
        "claim.tar": member(b"0", "a.jpg", 1 << 33) + REST,
        "gzip.tar": bytes.fromhex("1f8b0800") + bytes(1 << 20),
        "long-name.tar": member(b"L", "x", 200 << 20) + bytes(200 << 20) + REST,
        "path.tar": made.tar({f"../{escape.name}": b"x", str(escape): b"y"}),
        "link.tar": member(tarfile.SYMTYPE, "a", linkname="/etc") + REST,
        "many.tar": headers + bytes(1024),
    }
    found = measure(tmp_path / "in", files)
    results = {name: result for name, (result, _, _) in found.items()}
    assert results.pop("many.tar") == "it has more than 20000 members; split it into smaller shards"
    assert len(results) == 6
    assert not any(result.endswith("records") for result in results.values())
    sizes = {name: len(data) >> 20 for name, data in files.items()}
    grown = {name: more - 2 * sizes[name] for name, (_, more, _) in found.items()}
    assert grown.pop("many.tar") < 25, "a thousand bytes for each member that was seen"
    assert max(grown.values()) < MEGABYTES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    assert not escape.exists()
