from __future__ import annotations

import gzip
import io
import tarfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import ShardError
from pipelines.records import Record
from pipelines.storage import ObjectRef
from pipelines.tar_members import members
from pipelines.tar_records import read_tar
from tests.support import made

REF = ObjectRef("s3://data/shard.tar", "etag", 0)


def special(kind: bytes, name: str = "a.jpg", **fields: Any) -> bytes:
    """A tar with one good member and one of a special kind."""
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf() + made.tar({"good.jpg": b"x"})


def outcome(data: bytes | bytearray) -> list[Record] | str:
    """The records, or that the tar was refused with its URI in the message."""
    try:
        return read_tar(REF, bytes(data))
    except ShardError as error:
        return "refused" if str(error).startswith(REF.uri) else "a bad message"


def test_webdataset_members_become_records_in_order() -> None:
    data = made.tar(
        {
            "b/002.jpg": b"image 2",
            "b/002.json": b"{}",
            "b/002.png": b"label 2",
            "001.JPG": b"image 1",
            "001.seg.png": b"label 1",
            "003.png": b"image 3",
            "003.mask.png": b"label 3",
            "004.webp": b"image 4",
            "004.caption.txt": b"ignored beside an image",
            "shard.json": b"metadata of the whole shard",
            "005.png": b"image 5",
        }
    )
    records = read_tar(REF, data)
    assert [(r.key, r.image, r.label) for r in records] == [
        ("b/002", b"image 2", b"label 2"),
        ("001", b"image 1", b"label 1"),
        ("003", b"image 3", b"label 3"),
        ("004", b"image 4", None),
        ("005", b"image 5", None),
    ]
    assert {(r.uri, r.etag) for r in records} == {(REF.uri, REF.etag)}


def test_members_of_a_key_need_not_be_neighbours() -> None:
    data = made.tar({"a.jpg": b"A", "b.jpg": b"B", "a.label.png": b"a", "b.label.png": b"b"})
    assert [(r.key, r.image, r.label) for r in read_tar(REF, data)] == [
        ("a", b"A", b"a"),
        ("b", b"B", b"b"),
    ]


names = st.lists(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)
    .map(lambda text: text.encode()[:80].decode(errors="ignore") or "x")
    .filter(lambda text: text.strip(".") != ""),
    min_size=1,
    max_size=4,
).map("/".join)


@given(st.dictionaries(names, st.binary(max_size=1500), max_size=6), st.sampled_from([0, 1, 2]))
@settings(max_examples=60)
def test_members_agree_with_pythons_tarfile(files: dict[str, bytes], form: int) -> None:
    try:
        data = made.tar(files, format=form)
    except ValueError:
        return  # too long a name for plain ustar
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        expected = [(info.name, tar.extractfile(info).read()) for info in tar]  # type: ignore[union-attr]
    assert list(members(data)) == expected


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_cut_anywhere_is_an_error_or_complete(form: int) -> None:
    files = {f"{'long/' * 30 * (n % 2)}{n}.jpg": bytes([n]) * (300 * n) for n in range(5)}
    data = made.tar(files, format=form)
    whole = read_tar(REF, data)
    assert len(whole) == 5
    outcomes = [outcome(data[:length]) for length in range(0, len(data), 512)]
    first = outcomes.index(whole)
    assert set(outcomes[:first]) == {"refused"}
    assert outcomes[first:] == [whole] * (len(outcomes) - first)
    assert outcome(data[: (first - 1) * 512 + 1]) == "refused"


def test_a_flipped_bit_in_a_header_is_never_a_shorter_list() -> None:
    data = bytearray(made.tar({f"{n}.jpg": bytes([n]) * 100 for n in range(4)}))
    whole = outcome(data)
    harmless = 0
    for offset in range(4 * 1024):
        if offset % 1024 < 512:
            data[offset] ^= 1
            result = outcome(data)
            assert result in ("refused", whole)
            harmless += result == whole
            data[offset] ^= 1
    assert harmless <= 4 * 2, "only the two bytes that end the checksum's digits do not count"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (made.tar({"/etc/passwd.jpg": b"x"}), "is absolute or leads out"),
        (made.tar({"../../a.jpg": b"x"}), "is absolute or leads out"),
        (made.tar({"a/../b.jpg": b"x"}), "is absolute or leads out"),
        (made.tar({"x" * 600 + ".jpg": b"x"}), "604 bytes long"),
        (special(tarfile.SYMTYPE, linkname="/etc/passwd"), "is a symbolic link"),
        (special(tarfile.LNKTYPE, linkname="good.jpg"), "is a hard link"),
        (special(tarfile.FIFOTYPE), "is a FIFO"),
        (special(tarfile.CHRTYPE), "is a device"),
        (special(tarfile.GNUTYPE_SPARSE), "is a sparse file"),
        (gzip.compress(made.tar({"a.jpg": b"x"})), "compressed with gzip"),
        (made.tar({"a.jpg": b"x" * 100})[:600], "cut off at byte 600, inside the member at byte 0"),
        (b"", "cut off at byte 0"),
        (b"not a tar" * 100, "it is no tar"),
        (made.tar({"a.jpg": b"x"}) + made.tar({"b.jpg": b"x"}), "data after the end mark"),
        (made.tar([("a.jpg", b"x"), ("a.jpg", b"y")]), "'a.jpg' is there twice"),
        (made.tar({"a.jpg": b"x", "a.webp": b"y"}), "key 'a' needs one image"),
        (made.tar({"a.seg.png": b"x"}), "key 'a' needs one image"),
        (made.tar({"a.npy": b"x"}), "key 'a' needs one image"),
        (made.tar({"README": b"x"}), "key 'README' needs one image"),
    ],
    ids=lambda value: value if isinstance(value, str) else "tar",
)
def test_hostile_and_unclear_tars_are_refused_by_name(data: bytes, reason: str) -> None:
    with pytest.raises(ShardError) as caught:
        read_tar(REF, data)
    assert reason in str(caught.value)
    assert str(caught.value).startswith(REF.uri)
    assert "\n" not in str(caught.value)


def test_a_sparse_member_in_pax_form_is_refused() -> None:
    info = tarfile.TarInfo("a.jpg")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": str(10**12)}
    with pytest.raises(ShardError, match="is a sparse file"):
        read_tar(REF, info.tobuf(tarfile.PAX_FORMAT) + made.tar({}))


@pytest.mark.parametrize(
    "size", [b"\x80" + b"\0" * 6 + b"\x7f" * 5, b"\xff" * 12, b"77777777777\0"]
)
def test_a_size_that_lies_is_refused_at_once(size: bytes) -> None:
    header = bytearray(made.tar({"a.jpg": b"x"}))
    header[124:136] = size
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
    with pytest.raises(ShardError):
        read_tar(REF, bytes(header))


def test_folders_hidden_files_and_an_empty_tar_hold_no_records() -> None:
    info = tarfile.TarInfo("folder")
    info.type = tarfile.DIRTYPE
    data = info.tobuf() + made.tar({"./folder/.DS_Store": b"x", "folder/._a.jpg": b"mac"})
    assert read_tar(REF, data) == []
    assert read_tar(REF, made.tar({})) == []
    assert [r.key for r in read_tar(REF, made.tar({"./folder/a.jpg": b"x"}))] == ["folder/a"]
