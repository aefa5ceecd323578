"""A dry run says what a run would find and need, and touches nothing."""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fcn_model import load_segmenter
from fcn_model.tile_plans import tile_plan
from pipelines import images, storage
from pipelines.datasets import scenes
from pipelines.errors import ShardError, StoreError
from pipelines.masks.generation import Generation, part_name
from pipelines.masks.worklist import Task, Worklist
from pipelines.segmentation import sampling
from pipelines.segmentation.calibration import Calibration, measure, on_cluster
from pipelines.segmentation.dry_run import dry_run, estimated, tile_lines, work_lines
from pipelines.segmentation.night import segment
from pipelines.segmentation.opening import Night
from pipelines.segmentation.sampling import pieces, take
from pipelines.segmentation.settings import SegmentConfig
from pipelines.segmentation.stages import DECODED_BYTES, Job
from pipelines.sources import Source, open_source
from pipelines.units import Unit
from tests.support.made import fill, tar
from tests.support.tiny import save_checkpoint

SIZES = [(40, 50), (40, 50), (60, 30), (40, 50), (300, 400), (40, 50)]
"""(height, width) of the images of the archive."""


MEASURED = Calibration(
    images=2,
    errors=0,
    pixels=1,
    start=1.0,
    decode=0.0,
    network=0.5,
    encode=0.0,
    mask_bytes=300.0,
    device="cpu",
    threads=1,
    peak_bytes=1,
)


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


def _png(size, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue(), pixels


def _archive(root, sizes=SIZES):
    for index, size in enumerate(sizes):
        storage.create(storage.join(root, f"{index}.png"), _png(size, index)[0])
    storage.create(storage.join(root, "broken.png"), b"no image")
    storage.create(storage.join(root, "empty.png"), b"")


def _everything(root):
    """Names, versions and, on a disk, folders and their times."""
    found = {ref for ref, _ in storage.list_with_ages(root, hidden=True)}
    if storage.is_s3(root):
        return found, set()
    path = storage.local_path(root)
    return found, [
        (name, Path(name).stat().st_mtime_ns if "/in" in name else 0)
        for name, _, _ in os.walk(path)
    ]


def _job(checkpoint, model, max_pixels=10**6):
    return Job(
        checkpoint=storage.parse_uri(checkpoint),
        output="file:///nowhere",
        generation=Generation(model=model, network="tiny", precision="fp32", max_pixels=max_pixels),
        classes=scenes.CLASSES,
        batch_pixels=10**6,
        tile_pixels=10**6,
        record_seconds=60.0,
        actors_per_node=1,
    )


@pytest.mark.ray
@pytest.mark.parametrize("existing", [False, True])
def test_a_dry_run_tells_what_there_is_and_changes_nothing(ray_session, root, checkpoint, existing):
    _archive(storage.join(root, "in"))
    if existing:
        storage.create(storage.join(root, "out", "data", "x"), b"mine")
    before = _everything(root)
    source = open_source(storage.join(root, "in"), unit_records=3)
    config = SegmentConfig(
        checkpoint=checkpoint,
        output=storage.join(root, "out"),
        tile_pixels=100_000,
        max_pixels=100_000,
        num_actors=2,
    )
    lines: list[str] = []
    dry_run(config, source, lines.append)
    assert _everything(root) == before
    text = "\n".join(lines)
    total = sum(ref.size for unit in source.units for ref in unit.objects)
    for wanted in (
        f"8 images in 3 pieces, {total / 1e3:.1f} kB",
        f"3 units new: to be segmented (8 images, {total / 1e3:.1f} kB)",
        "3 of 8 records sampled would be error rows: ",
        "1 not_an_image",
        "1 too_large",
        "1 empty",
        "sizes of 5 images sampled: 40x50 in the middle, 40x50 the largest",
        f"{storage.join(root, 'out')}/data/gen=",
        "for 8 images",
    ):
        assert wanted in text, (wanted, text)
    assert re.search(r"network \d+ ms, .* images/s with one actor, [\d.]+ with 2", text), text
    assert lines[-1] == "nothing was written"


@pytest.mark.ray
def test_after_a_run_only_what_came_or_changed_since_is_to_do(ray_session, tmp_path, checkpoint):
    _archive(storage.parse_uri(str(tmp_path / "in")), sizes=SIZES[:3])
    config = SegmentConfig(checkpoint=checkpoint, output=str(tmp_path / "out"))

    def lines_of(config):
        lines: list[str] = []
        dry_run(config, open_source(str(tmp_path / "in"), unit_records=3), lines.append)
        return lines

    segment(config, open_source(str(tmp_path / "in"), unit_records=3), progress=lambda text: None)
    before = _everything(storage.parse_uri(str(tmp_path)))
    assert lines_of(config)[-1].startswith("nothing to do")
    (tmp_path / "in/late.png").write_bytes(_png((9, 9), 9)[0])
    (tmp_path / "in/1.png").write_bytes(_png((8, 9), 9)[0])
    (tmp_path / "in/broken.png").unlink()
    text = "\n".join(lines_of(config))
    for wanted in (
        "1 unit new",
        "1 unit done before",
        "1 unit changed since, whose old",
        "1 file;",
    ):
        assert wanted in text, (wanted, text)
    text = "\n".join(lines_of(replace(config, replace_changed=True)))
    assert "1 unit changed since: to be segmented again" in text
    assert {ref for ref in before[0] if "/out/" in ref.uri} == {
        ref for ref in _everything(storage.parse_uri(str(tmp_path)))[0] if "/out/" in ref.uri
    }


def test_the_sample_of_an_input_is_spread_over_it_and_costs_no_more_than_its_headers(
    tmp_path, monkeypatch
):
    sizes = [(20, 10 + index) for index in range(50)]
    for index, size in enumerate(sizes):
        Image.new("RGB", size[::-1]).save(tmp_path / f"{index:02d}.bmp")
    Image.new("RGB", (400, 300)).save(tmp_path / "50.bmp")
    source = open_source(str(tmp_path), unit_records=8)
    read: Counter[str] = Counter()
    opened = storage.open_ranged

    def counting(ref):
        file = opened(ref)

        def counted(*args):
            data = type(file).read(file, *args)
            read[ref.uri] += len(data)
            return data

        return type(
            "Counting",
            (),
            {
                "__enter__": lambda self: self,
                "__exit__": lambda self, *_: file.close(),
                "read": staticmethod(counted),
            },
        )()

    monkeypatch.setattr(storage, "open_ranged", counting)
    sample = take(source.units, 12, max_pixels=10**6)
    assert (sample.records, len(sample.sizes)) == (12, 12)
    assert set(sample.sizes) <= {*sizes, (300, 400)}
    widths = sorted(width for _, width in sample.sizes)
    assert min(np.diff(widths)) > 0  # no record twice
    assert max(np.diff([10, *[w for w in widths if w < 60], 60])) <= 10  # no gap
    assert take(source.units, 12, max_pixels=10**6) == sample  # the same input, the same sample
    everything = take(source.units, 1000, max_pixels=10**4)
    assert sorted(everything.sizes) == sizes
    assert everything.refused == {"too_large": 1}
    read.clear()
    take(source.units, 1000, max_pixels=10**6)
    assert max(read.values()) <= sampling.HEADER_BYTES  # of 360,000 bytes in 50.bmp


def test_pieces_hold_as_many_records_as_were_asked_for():
    ref = storage.ObjectRef("s3://data/x.parquet", "e", 1000)
    shards = [
        Unit("parquet", (ref,), start=start, stop=start + 100) for start in range(0, 1000, 100)
    ]
    for count in (1, 7, 10, 23, 999, 5000):
        found = list(pieces(shards, count))
        rows = [row for unit in found for row in range(unit.start, unit.stop or 0)]
        assert len(rows) == len(set(rows)) == min(count, 1000)
    tars = [
        Unit("tar", (storage.ObjectRef(f"s3://data/{size}.tar", "e", size),))
        for size in (sampling.LARGEST_TAR + 1, *range(3000 + sampling.TARS, 2999, -1))
    ]
    assert list(pieces(tars, 5)) == tars[:1:-1]
    assert list(pieces(tars[:1], 5)) == []


def _tars(folder):
    """Tars of growing size: cut short, empty, without records, and two of which both are whole."""
    whole = [tar({f"{n}.png": _png((20, 30 + n), seed=n)[0] for n in range(k)}) for k in (1, 3)]
    contents = (whole[0][:700], b"", tar({}), *whole)
    return open_source(str(fill(folder, {f"{n}.tar": data for n, data in enumerate(contents)})))


def test_a_damaged_tar_is_no_sample_and_the_first_whole_one_is_enough(tmp_path):
    source = _tars(tmp_path / "in")
    (tmp_path / "in" / "5.tar").symlink_to("nowhere")
    with_link = open_source(str(tmp_path / "in"))
    for units, refused in ((source.units, 2), (with_link.units, 3)):
        sample = take(units, 5, max_pixels=10**6)
        assert sample.refused == {"damaged shard": refused}
    assert take(source.units, 5, max_pixels=10**6).sizes == [(20, 30)]


def test_the_measurement_leaves_damaged_shards_out_and_says_so_if_there_is_no_other(
    tmp_path, checkpoint
):
    source = _tars(tmp_path)
    job = _job(checkpoint, load_segmenter(checkpoint).config.digest)
    units = [unit.to_json() for unit in pieces(source.units, 5)]
    measured = measure(job, units)
    assert measured is not None
    assert (measured.images, measured.errors) == (1, 0)
    with pytest.raises(ShardError, match=r"0\.tar"):
        measure(job, [unit.to_json() for unit in source.units[:1]])
    assert measure(job, [unit.to_json() for unit in source.units[2:3]]) is None


@pytest.mark.ray
def test_a_dry_run_over_damaged_shards_alone_is_one_without_a_measurement(
    ray_session, tmp_path, checkpoint
):
    source = _tars(tmp_path / "in")
    lines: list[str] = []
    config = SegmentConfig(checkpoint=checkpoint, output=str(tmp_path / "out"))
    dry_run(config, replace(source, units=source.units[:2]), lines.append)
    text = "\n".join(lines)
    assert re.search(r"speed: not measured: .*\.tar", text), text
    assert "2 units sampled cannot be read, and would have no masks" in text
    assert "error rows" not in text
    assert text.endswith("nothing was written")


def test_the_measurement_is_of_the_records_masks(tmp_path, checkpoint):
    _archive(storage.parse_uri(str(tmp_path / "in")))
    source = open_source(str(tmp_path / "in"), unit_records=3)
    segmenter = load_segmenter(checkpoint)
    job = _job(checkpoint, segmenter.config.digest, max_pixels=100_000)
    measured = measure(job, [unit.to_json() for unit in source.units])
    assert measured is not None
    small = [(index, size) for index, size in enumerate(SIZES) if size != (300, 400)]
    assert (measured.images, measured.errors) == (5, 3)
    assert measured.pixels == sum(height * width for _, (height, width) in small)
    pngs = [
        len(images.encode_mask(segmenter(_png(size, index)[1]), scenes.CLASSES))
        for index, size in small
    ]
    assert measured.mask_bytes == sum(pngs) / len(pngs)
    assert min(measured.start, measured.decode, measured.network, measured.encode) > 0
    assert measured.peak_bytes > 100e6  # torch alone takes that
    broken = [
        unit for unit in source.units if "broken" in unit.keys[-1] or "broken" in unit.keys[0]
    ]
    only = broken[0].only([broken[0].keys.index("broken.png")])
    assert measure(job, [only.to_json()]) is None


@pytest.mark.ray
@pytest.mark.s3
def test_a_worker_that_may_not_read_the_input_ends_the_dry_run(
    ray_session, s3, monkeypatch, checkpoint
):
    root = s3.uri()
    _archive(root)
    source = open_source(root)
    model = load_segmenter(checkpoint).config.digest
    # A worker has the credentials with which its node was started; no object has this version.
    gone = Unit("parquet", (storage.ObjectRef(storage.join(root, "0.png"), "x", 100),), stop=1)
    with pytest.raises(StoreError, match=re.escape(root)) as caught:
        on_cluster(_job(checkpoint, model), [gone])
    assert "\n" not in str(caught.value)
    assert on_cluster(_job(checkpoint, model), list(pieces(source.units, 2))) is not None


def test_rates_follow_from_the_slowest_or_from_shared_cores():
    gpu = replace(MEASURED, device="cuda", decode=0.03, network=0.1, encode=0.01)
    assert gpu.rate(1, 16) == pytest.approx(10)
    assert gpu.rate(4, 16) == pytest.approx(40)
    assert gpu.rate(4, 5) == pytest.approx(25)  # one core for 40 ms of decoding and encoding
    assert gpu.rate(4, 2) == pytest.approx(25)
    cpu = replace(gpu, device="cpu", threads=2)
    assert cpu.rate(1, 2) == pytest.approx(1 / 0.12)
    assert cpu.rate(3, 6) == pytest.approx(3 / 0.12)


def test_the_estimate_counts_what_is_known_and_reckons_the_rest_by_bytes(monkeypatch):
    monkeypatch.setattr("pipelines.segmentation.dry_run._cores", lambda: 4)
    sample = sampling.Sample(sizes=[(100, 200), (100, 100)], encoded_bytes=2 * 5000)
    measured = MEASURED
    raw = [
        Unit("raw", (storage.ObjectRef(f"s3://data/{i}", "e", 7),), keys=(str(i),))
        for i in range(3)
    ]
    tar = Unit("tar", (storage.ObjectRef("s3://data/x.tar", "e", 50_000),))
    exact = estimated(raw, sample, measured, 2)
    assert (exact.images, exact.exact, exact.seconds, exact.mask_bytes) == (3, True, 0.75, 900)
    mixed = estimated([*raw, tar], sample, measured, 2)
    assert (mixed.images, mixed.exact, mixed.seconds) == (13, False, 3.25)
    decoded = 10 * 15_000 * 3
    assert mixed.task_bytes == 2 * (decoded + 50_000) + 6 * 20_000
    assert mixed.store_bytes == 6 * 2 * decoded
    huge = estimated(
        [Unit("tar", (storage.ObjectRef("s3://data/x.tar", "e", 10**9),))], sample, None, 1
    )
    assert (huge.seconds, huge.mask_bytes) == (None, None)
    assert huge.store_bytes == 6 * DECODED_BYTES


def test_every_list_of_work_is_named_with_its_contents():
    def task(number, was=False):
        ref = storage.ObjectRef(f"s3://data/{number}.png", "e", 1000)
        unit = Unit("raw", (ref,), keys=(str(number),))
        return Task(unit, part_name(unit), part_name(unit) if was else None)

    work = Worklist(
        todo=[task(1), task(2), task(3, was=True)],
        done=[task(4)],
        retry=[task(5, was=True)],
        changed=[task(6, was=True), task(7, was=True)],
        parked=[task(8)],
        vanished=[task(9)],
        strays=[task(10).name],
        gone=4,
    )
    text = "\n".join(work_lines(work))
    for wanted in (
        "2 units new: to be segmented (2 images, 2.0 kB)",
        "1 unit changed since: to be segmented again (1 image, 1.0 kB)",
        "1 unit with errors that may pass",
        "1 unit done before",
        "2 units changed since, whose old masks stay without --replace-changed",
        "1 unit parked",
        "1 unit deleted before",
        "gone since they were planned: 4 files",
        "of units that no plan has: 1 part;",
    ):
        assert wanted in text, wanted
    assert list(work_lines(Worklist())) == []


def test_large_images_are_said_to_be_cut_as_the_network_cuts_them(checkpoint):
    segmenter = load_segmenter(checkpoint)
    config = SegmentConfig(checkpoint=checkpoint, output="/out", tile_pixels=200_000)
    source = Source("file:///in", "archive", None, ())
    generation = _job(checkpoint, segmenter.config.digest).generation
    night = Night(config, source, config.output, segmenter.config, generation)
    sample = sampling.Sample(sizes=[(50, 60), (900, 1100), (900, 1100)])
    lines = list(tile_lines(sample, night))
    plan = tile_plan(segmenter.config.spec, (900, 1100), 200_000)
    assert "2 of 3 images sampled are cut" in lines[0]
    assert f"900x1100 into {plan.count} windows" in lines[1]
    assert plan.count > 1
    assert len(lines) == 2
