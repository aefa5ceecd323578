"""Parquet shards that are damaged or lie: refused by name, within bounds of memory and time."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import parquet_file, storage
from pipelines.errors import ShardError
from pipelines.parquet_records import read_footer, read_keys, read_label_rows, read_rows
from pipelines.records import Record
from pipelines.schemas import IMAGE, SHARD, with_metadata
from pipelines.shards import write_shard
from pipelines.storage import ObjectRef
from tests.support import made, thrift
from tests.support.measured import MEGABYTES, measure
from tests.support.thrift import BINARY, I64, LIST, STRUCT

RECORDS = [
    Record(f"k{n}", f"s3://b/k{n}.jpg", f"e{n}", made.jpg(made.picture(n)), made.label_png(n))
    for n in range(40)
]
GOOD = write_shard(RECORDS, made.CLASSES)
FOOTER = len(GOOD) - 8 - int.from_bytes(GOOD[-8:-4], "little")


def stored(folder: Path, data: bytes) -> ObjectRef:
    (folder / "s.parquet").write_bytes(data)
    ref = storage.stat(storage.parse_uri(str(folder / "s.parquet")))
    assert ref is not None
    return ref


def outcome(ref: ObjectRef) -> str:
    """``equal`` or ``wrong`` rows, or ``refused`` with the shard's name in the message."""
    try:
        rows = read_rows(ref)
    except ShardError as error:
        named = str(error).startswith(f"{ref.uri}: ") and "\n" not in str(error)
        return "refused" if named else f"a bad message: {error}"
    return "equal" if rows == RECORDS else "wrong"


def test_a_shard_cut_anywhere_is_refused(tmp_path: Path) -> None:
    for length in [*range(60), *range(60, len(GOOD), 997), *range(len(GOOD) - 60, len(GOOD))]:
        assert outcome(stored(tmp_path, GOOD[:length])) == "refused"
    assert outcome(stored(tmp_path, GOOD)) == "equal"
    assert outcome(stored(tmp_path, GOOD + b"x")) == "refused"


def test_a_flipped_bit_is_an_error_or_changes_no_row(tmp_path: Path) -> None:
    """Pages have checksums. The footer has none: its numbers must agree with those of the pages."""
    random = np.random.default_rng(3)
    body = random.integers(4, FOOTER, 100).tolist()
    footer = random.integers(FOOTER, len(GOOD), 400).tolist()
    found = {"body": [], "footer": []}  # type: dict[str, list[str]]
    for place in [*body, *footer]:
        data = bytearray(GOOD)
        data[place] ^= 1 << random.integers(8)
        found["footer" if place >= FOOTER else "body"].append(
            outcome(stored(tmp_path, bytes(data)))
        )
    assert set(found["body"] + found["footer"]) == {"equal", "refused"}
    assert found["body"].count("refused") > 60
    assert found["footer"].count("refused") > 50


def rewritten(change: Callable[[dict[int, Any]], None], data: bytes = GOOD) -> bytes:
    """The shard with a footer that was decoded, changed and encoded again."""
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    fields, _ = thrift.decode(data[start:-8])
    assert thrift.encode(fields) == data[start:-8]
    change(fields)
    footer = thrift.encode(fields)
    return data[:start] + footer + struct.pack("<I4s", len(footer), b"PAR1")


def group(fields: dict[int, Any], index: int = 0) -> dict[int, Any]:
    return fields[4][1][1][index]


def column(fields: dict[int, Any], index: int, group_index: int = 0) -> dict[int, Any]:
    return group(fields, group_index)[1][1][1][index][3][1]


def claim_rows(rows: int, *, values: bool) -> Callable[[dict[int, Any]], None]:
    def change(fields: dict[int, Any]) -> None:
        fields[3] = (I64, fields[3][1] - group(fields)[3][1] + rows)
        group(fields)[3] = (I64, rows)
        for index in range(len(group(fields)[1][1][1])):
            column(fields, index)[5] = (I64, rows if values else column(fields, index)[5][1])

    return change


def set_column(index: int, field: int, value: Any) -> Callable[[dict[int, Any]], None]:
    return lambda fields: column(fields, index).__setitem__(field, value)


def set_root(field: int, value: Any) -> Callable[[dict[int, Any]], None]:
    return lambda fields: fields.__setitem__(field, value)


EMPTY_COLUMN = thrift.encode({2: (I64, 0)})
EMPTY_GROUP = thrift.encode({1: (LIST, (STRUCT, [])), 2: (I64, 0), 3: (I64, 0)})
WIDE_GROUP = thrift.encode(
    {1: (LIST, (STRUCT, [EMPTY_COLUMN] * 100_000)), 2: (I64, 0), 3: (I64, 0)}
)
LIES = {
    "fewer rows": (claim_rows(3, values=False), "has 16 values for 3 rows"),
    "fewer rows and values": (claim_rows(3, values=True), "is claimed to have 3 values"),
    "more rows and values": (claim_rows(17, values=True), "is claimed to have 17 values"),
    "2**31 rows": (claim_rows(1 << 31, values=True), "a row group claims 2147483648 rows"),
    "2**62 rows": (claim_rows(1 << 62, values=True), "a row group claims"),
    "negative rows": (claim_rows(-1, values=True), "a row group claims -1 rows"),
    "another total": (set_root(3, (I64, 41)), "its row groups have 40 rows, itself 41"),
    "codec 32": (set_column(3, 4, (thrift.I32, 32)), "a header has 32 in field 4"),
    "type 9": (set_column(3, 1, (thrift.I32, 9)), "a header has 9 in field 1"),
    "a column elsewhere": (set_column(0, 9, (I64, 1 << 40)), "lies at byte 1099511627776"),
    "a column of gigabytes": (set_column(0, 7, (I64, 1 << 40)), "with 1099511627776 bytes"),
    "a negative column": (set_column(0, 7, (I64, -5)), "with -5 bytes"),
    "another column's pages": (set_column(5, 9, (I64, 4)), "damaged"),
    "many columns": (set_root(4, (LIST, (STRUCT, [WIDE_GROUP]))), "parts and more"),
    "many row groups": (
        set_root(4, (LIST, (STRUCT, [EMPTY_GROUP] * 100_000))),
        "parts and more",
    ),
    "a long name": (set_root(6, (BINARY, b"x" * (65 << 20))), "its footer has"),
}


def test_footers_that_lie_are_refused_without_memory(tmp_path: Path) -> None:
    files = {f"{name}.parquet": rewritten(change) for name, (change, _) in LIES.items()}
    files["length.parquet"] = GOOD[:-8] + struct.pack("<I4s", 0xFFFFFFF0, b"PAR1")
    files["encrypted.parquet"] = GOOD[:-4] + b"PARE"
    found = measure(tmp_path, files)
    for name, (_, reason) in LIES.items():
        assert reason in found[f"{name}.parquet"][0]
    for name in ("length.parquet", "encrypted.parquet"):
        assert "it does not end as a Parquet file does" in found[name][0]
    assert len(found) == len(LIES) + 2
    grown = {name: more for name, (_, more, _) in found.items() if more > MEGABYTES}
    assert grown == {}


def bomb(values: list[bytes], **options: Any) -> bytes:
    """A shard of these images by Arrow's writer."""
    rows = len(values)
    texts = [str(n) for n in range(rows)]
    images = pa.StructArray.from_arrays(
        [pa.array(values, pa.binary()), pa.array(texts)], names=["bytes", "path"]
    )
    numbers = pa.array([1] * rows, pa.int32())
    table = pa.table(
        [texts, texts, texts, numbers, numbers, images, pa.nulls(rows, IMAGE)], schema=SHARD
    )
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=rows, **options)
    return file.getvalue()


def test_pages_that_unpack_to_gigabytes_are_refused_without_memory(tmp_path: Path) -> None:
    megabyte = bytes(1 << 20)
    texts: dict[str, Any] = {
        "use_dictionary": False,
        "column_encoding": {"image.bytes": "DELTA_BYTE_ARRAY"},
        "compression": "zstd",
    }
    files = {
        "dictionary.parquet": bomb([megabyte] * 100, compression="zstd"),
        "gzip.parquet": bomb([megabyte] * 100, compression="gzip"),
        "plain dictionary.parquet": bomb([megabyte] * 100, compression="none"),
        "large dictionary.parquet": bomb([bytes(9 << 20)], dictionary_pagesize_limit=1 << 30),
        "texts.parquet": bomb([megabyte] * 100, **texts),
    }
    assert max(map(len, files.values())) < 11 << 20
    found = measure(tmp_path, files)
    for name in ("dictionary", "gzip", "plain dictionary", "texts"):
        assert found[f"{name}.parquet"][0] == "its rows would unpack to over 67108864 bytes"
    assert "a dictionary of it has 9437188 bytes" in found["large dictionary.parquet"][0]
    assert {name: more for name, (_, more, _) in found.items() if more > MEGABYTES} == {}


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_honest_shards_of_any_writer_are_read(
    tmp_path: Path, compression: str, dictionary: bool, version: str
) -> None:
    images = [record.image for record in RECORDS[:3]] * 5
    options = {"compression": compression, "use_dictionary": dictionary}
    data = bomb(images, data_page_version=version, **options)
    assert [record.image for record in read_rows(stored(tmp_path, data))] == images


def table_of(columns: dict[str, Any], schema: pa.Schema = SHARD) -> bytes:
    empty = {name: pa.nulls(2, schema.field(name).type) for name in schema.names}
    texts = {name: ["a", "b"] for name in ("key", "uri", "etag")}
    file = io.BytesIO()
    pq.write_table(pa.table({**empty, **texts, **columns}, schema=schema), file)
    return file.getvalue()


def test_rows_that_break_the_schema_are_refused(tmp_path: Path) -> None:
    for name in ("key", "uri", "etag"):
        with pytest.raises(ShardError, match=rf"s\.parquet: row 1 has no {name}"):
            read_rows(stored(tmp_path, table_of({name: ["a", None]})))
    with pytest.raises(ShardError, match="row 1 has no key"):
        read_keys(stored(tmp_path, table_of({"key": ["a", None]})))
    with pytest.raises(ShardError, match="row 1 has no uri"):
        read_label_rows(stored(tmp_path, table_of({"uri": ["a", None]})))
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(struct.pack("<3i", 0, 1, 2)), pa.py_buffer(b"\xff\xfe")]
    )
    with pytest.raises(ShardError, match="UTF8"):
        read_rows(stored(tmp_path, table_of({"key": broken})))
    for field, kind in (("key", pa.int64()), ("image", pa.binary()), ("label", pa.string())):
        schema = SHARD.set(SHARD.get_field_index(field), pa.field(field, kind))
        file = io.BytesIO()
        pq.write_table(pa.table({f.name: pa.nulls(2, f.type) for f in schema}), file)
        with pytest.raises(ShardError, match=f"column '{field}' is {kind}, wanted"):
            read_footer(stored(tmp_path, file.getvalue()))
    file = io.BytesIO()
    doubled = SHARD.append(pa.field("key", pa.string()))
    pq.write_table(
        pa.Table.from_arrays([pa.nulls(2, f.type) for f in doubled], schema=doubled), file
    )
    with pytest.raises(ShardError, match="column 'key' is string and string"):
        read_footer(stored(tmp_path, file.getvalue()))
    for text in (b"{", b"[]", b'{"nam": []}', b'{"names": ["a"], "void_id": 70000}'):
        schema = with_metadata(SHARD, extra={"fcn.classes": text.decode()})
        with pytest.raises(ShardError, match=r"s\.parquet: its class list is damaged"):
            read_footer(stored(tmp_path, table_of({}, schema)))


def test_only_the_wanted_columns_are_fetched(tmp_path: Path, monkeypatch: Any) -> None:
    spans: list[int] = []
    fetched = parquet_file.ParquetFile._fetched

    def counted(self: Any, start: int, end: int) -> bytes:
        spans.append(end - start)
        return fetched(self, start, end)

    monkeypatch.setattr(parquet_file.ParquetFile, "_fetched", counted)
    images = [bytes([n]) * 200_000 for n in range(32)]
    records = [Record(f"k{n}", "u", "e", image) for n, image in enumerate(images)]
    ref = stored(tmp_path, write_shard(records, None))
    assert read_keys(ref) == [record.key for record in records]
    assert sum(spans) < 100_000
    spans.clear()
    assert read_rows(ref, 16, 32) == [
        Record(r.key, ref.uri and "u", "e", r.image) for r in records[16:]
    ]
    assert sum(spans) < 3_500_000
    assert len(spans) == 2, "the end, and one row group"
