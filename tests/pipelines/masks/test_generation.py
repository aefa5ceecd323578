"""Names of masks follow from model and input, and from nothing else."""

from __future__ import annotations

import dataclasses

import pytest

from pipelines.masks.generation import Generation, PartName, part_name
from pipelines.storage import ObjectRef
from pipelines.units import Unit

GENERATION = Generation(model="m" * 64, network="FCN-8s VGG16", precision="fp32", max_pixels=100)
UNIT = Unit("parquet", (ObjectRef("s3://bucket/shard.parquet", "etag", 10),), start=0, stop=32)


@pytest.mark.parametrize(
    "change",
    [{"model": "n" * 64}, {"precision": "bf16"}, {"max_pixels": 101}, {"inference_abi": 99}],
)
def test_whatever_changes_a_mask_changes_the_generation(change):
    assert dataclasses.replace(GENERATION, **change).id != GENERATION.id


def test_the_generation_id_is_the_same_on_every_machine_and_in_every_release():
    # A golden value: if it changes, every archive in the field is segmented again.
    assert GENERATION.id == "67b57969e6700f64"


def test_a_range_is_another_unit_and_a_new_version_only_another_version():
    name = part_name(UNIT)
    assert part_name(dataclasses.replace(UNIT, stop=31)).unit != name.unit
    newer = dataclasses.replace(UNIT, objects=(dataclasses.replace(UNIT.objects[0], etag="new"),))
    assert part_name(newer).unit == name.unit
    assert part_name(newer).version != name.version


@pytest.mark.parametrize("retry", [0, 1, 12])
def test_a_part_name_reads_back_and_foreign_names_do_not(retry):
    name = dataclasses.replace(part_name(UNIT), retry=retry)
    assert PartName.parse(name.file) == name
    for foreign in ("part-1-2.parquet", name.file + ".tmp", "x" + name.file, name.file.upper()):
        assert PartName.parse(foreign) is None


def test_every_part_has_one_file_name_only():
    # A second spelling of a retry would let one part stand in a folder twice.
    stem = part_name(UNIT).file.removesuffix(".parquet")
    for twin in ("-r0", "-r01", "-r", "-r-1", "-r1-r2", "-R1"):
        assert PartName.parse(f"{stem}{twin}.parquet") is None


def test_a_retry_is_of_the_same_unit_and_version_and_comes_later():
    first = part_name(UNIT)
    again = dataclasses.replace(first, retry=1)
    assert (again.unit, again.version) == (first.unit, first.version)
    assert sorted([dataclasses.replace(first, retry=10), again, first])[0] == first
    assert again.file != first.file
