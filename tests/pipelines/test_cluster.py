"""How rows are shared among training workers."""

from __future__ import annotations

from collections import Counter

import pytest

from pipelines import cluster, ingest
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
    shares = EveryRow(always_dealt=["train"]).configure({"train": rows}, 2, None, None)

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
    (share,) = EveryRow(always_dealt=["train"]).configure({"train": rows, "val": rows}, 1)
    kinds = {name: type(each).__name__ for name, each in share.items()}
    assert kinds == {"train": "StreamSplitDataIterator", "val": "DataIteratorImpl"}

    @ray.remote(num_cpus=0)
    def read(val):
        for _ in range(2):
            batches = val.iter_batches(batch_size=3, batch_format="pyarrow")
            yield sorted(pair.key for batch in batches for pair in ingest.pairs_of(batch))

    seen = [ray.get(each) for each in read.options(num_returns=2).remote(share["val"])]
    assert seen == [[f"x-{index:04d}" for index in range(5)]] * 2


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
