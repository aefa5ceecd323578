import io, os, time
import pyarrow as pa, pyarrow.dataset as ds, pyarrow.parquet as pq
from pyarrow.fs import S3FileSystem
from pipelines import storage
from pipelines.masks import reader, snapshots, head
from pipelines.masks.store_files import store_filesystem
from tests.support.mask_output import *
import random
def timed(label, f, n=2):
    best=9e9
    for _ in range(n):
        t=time.perf_counter(); c=time.process_time(); r=f(); dt=time.perf_counter()-t; cpu=time.process_time()-c
        if dt<best: best, bc = dt, cpu
    print(f"{label}: {best:.3f} s, cpu {bc:.3f}"); return r
def test_read(s3):
    output=s3.uri(); t=pa.table({"a": [os.urandom(20000) for _ in range(64)]})
    b=io.BytesIO(); pq.write_table(t,b); data=b.getvalue()
    uris=[f"{output}/d/p{i}.parquet" for i in range(40)]
    for u in uris: storage.create(u, data)
    print(len(data)*40/1e6, "MB")
    paths=[u.removeprefix("s3://") for u in uris]
    host=s3.endpoint.removeprefix("http://")
    native=S3FileSystem(region="us-east-1", scheme="http", endpoint_override=host)
    for name, fs in (("native", native), ("ours", store_filesystem()), ("s3fs", storage.arrow_filesystem(output)[0])):
        def go():
            f=ds.ParquetFileFormat(); d=ds.FileSystemDataset([f.make_fragment(p, fs, file_size=len(data)) for p in paths], t.schema, f, fs)
            return d.to_table().num_rows
        timed(name, go)
def test_many(s3, tmp_path):
    parts=[made_up(random.getrandbits(60), errors={"empty":2,"truncated":1}, transient=1, class_pixels=tuple(random.getrandbits(24) for _ in range(21)), etag="%032x"%random.getrandbits(128), sha256="%064x"%random.getrandbits(256)) for _ in range(10000)]
    for output in (storage.parse_uri(str(tmp_path/"o")), s3.uri()):
        print(output[:8])
        s=timed("extend by 10000", lambda: snapshots.extend(output, G1, parts, "r"), 1)
        print("bytes", len(s.to_json()))
        timed("to_json", s.to_json)
        timed("extend, one more", lambda: snapshots.extend(output, G1, [made_up(1)], "r"), 1)
        timed("extend, nothing new", lambda: snapshots.extend(output, G1, parts, "r"))
        timed("load", lambda: snapshots.load(output, G1, 1))
        timed("summary", lambda: snapshots.load_summary(output, G1, 1))
        timed("advance", lambda: head.advance(output, s))
        timed("covers", lambda: head.covers(s, s))
        timed("files", lambda: reader.files(output))
        timed("find", lambda: reader.find_snapshot(output))
    write_first = write_part(output, 1, 3)
    snapshots.extend(output, G2, [], "r")
    s2 = snapshots.extend(output, G2, [write_part(output, 0, generation=G2), *parts], "r"); publish(output, s2)
    timed("open_masks", lambda: reader.open_masks(output))
    out=storage.parse_uri(str(tmp_path/"o"))
    s2 = snapshots.extend(out, G2, [write_part(out, 0, generation=G2), *parts], "r"); publish(out, s2)
    timed("open_masks local", lambda: reader.open_masks(out))
    from pipelines.masks.delta import export_delta
    r=timed("delta 10001", lambda: export_delta(out), 1); print(r)
    timed("delta again", lambda: export_delta(out), 1)
    publish(out, snapshots.load(out, G1, 2))
    print(timed("delta other generation", lambda: export_delta(out), 1))
    print(timed("delta again", lambda: export_delta(out), 1))
    r=timed("delta s3", lambda: export_delta(output), 1); print(r)
