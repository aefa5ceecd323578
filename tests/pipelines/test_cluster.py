"""How rows are shared among training workers."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from pipelines import cluster, ingest, ray_data
from pipelines.datasets.scenes import write_scenes
from pipelines.errors import ClusterError
from pipelines.every_row import EveryRow
from pipelines.sources import open_source


@pytest.mark.ray
def test_two_workers_together_get_every_row_once_per_epoch_in_another_order(ray_session, tmp_path):
    import ray

    write_scenes(str(tmp_path), images=11, seed=1, split="x")
    source = open_source(str(tmp_path), unit_records=2)
    rows = ingest.labelled_rows(source, shuffle_seed=5)
    shares = EveryRow(learned=["train"]).configure({"train": rows}, 2, None, None)

    @ray.remote(num_cpus=0)
    def read(share, epochs):
        seen = []
        for _ in range(epochs):
            batches = share["train"].iter_batches(batch_size=3, batch_format="pyarrow")
            seen.append([pair.key for batch in batches for pair in ingest.pairs_of(batch)])
        return seen

    first, second = ray.get([read.remote(share, 2) for share in shares])
    everything = Counter(f"x-{index:04d}" for index in range(11))
    for epoch in range(2):
        assert Counter(first[epoch]) + Counter(second[epoch]) == everything
        assert first[epoch]
        assert second[epoch]
    assert (first[0], second[0]) != (first[1], second[1])


@pytest.mark.ray
def test_what_only_one_worker_has_is_not_dealt_out_by_a_process_of_its_own(ray_session, tmp_path):
    import ray

    write_scenes(str(tmp_path), images=5, seed=1, split="x")
    rows = ingest.labelled_rows(open_source(str(tmp_path), unit_records=2))
    (share,) = EveryRow(learned=["train"]).configure({"train": rows, "val": rows}, 1)
    kinds = {name: type(each).__name__ for name, each in share.items()}
    assert kinds == {"train": "StreamSplitDataIterator", "val": "DataIteratorImpl"}

    @ray.remote(num_cpus=0)
    def read(val):
        for _ in range(2):
            batches = val.iter_batches(batch_size=3, batch_format="pyarrow")
            yield sorted(pair.key for batch in batches for pair in ingest.pairs_of(batch))

    seen = [ray.get(each) for each in read.options(num_returns=2).remote(share["val"])]
    assert seen == [[f"x-{index:04d}" for index in range(5)]] * 2


def nap(table, slow):
    """A unit's rows, of which those of even number take half a second if they are ``slow``."""
    if slow and table["unit"][0].as_py() % 2 == 0:
        time.sleep(0.5)
    return table


def units_of_passes(share, passes):
    """What a worker sees of its share, pass after pass."""
    return [[row["unit"] for row in share.iter_rows()] for _ in range(passes)]


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_units_that_take_long_hold_their_place(ray_session, workers):
    """The oracle is the seeded order of one task at a time, which none can overtake."""
    import ray

    def passes(*, tasks, slow):
        units = ray_data.one_row_per_block([{"unit": index} for index in range(12)])
        seed = ray.data.RandomSeedConfig(seed=5, reseed_after_execution=True)
        rows = units.randomize_block_order(seed=seed).map_batches(
            nap,
            batch_size=1,
            batch_format="pyarrow",
            fn_kwargs={"slow": slow},
            compute=ray.data.TaskPoolStrategy(size=tasks),
        )
        config = EveryRow(learned=["train"])
        shares = config.configure({"train": rows}, workers, None, ["node"] * workers)
        read = ray.remote(num_cpus=0)(units_of_passes)
        return ray.get([read.remote(share["train"], 2) for share in shares])

    expected = passes(tasks=1, slow=False)
    for epoch in range(2):
        assert sorted(unit for share in expected for unit in share[epoch]) == list(range(12))
    assert len({str(share[epoch]) for share in expected for epoch in range(2)}) == 2 * workers
    for _ in range(2):
        assert passes(tasks=4, slow=True) == expected


@pytest.mark.ray
def test_too_few_logical_cpus_are_refused_instead_of_hanging(ray_session):
    with pytest.raises(ClusterError, match=r"need 9 logical CPUs, the cluster has 8"):
        cluster.require_cpus(9, "nine actors")


@pytest.mark.parametrize(
    ("cores", "actors", "wanted"), [(1, 1, 3), (2, 1, 3), (2, 3, 5), (16, 1, 17)]
)
def test_a_cluster_of_a_jobs_own_has_a_task_for_each_core_beside_the_actors(
    monkeypatch, cores, actors, wanted
):
    monkeypatch.setattr(cluster, "usable_cores", lambda: cores)
    assert cluster.local_cpus(actors) == wanted
