"""How Ray Train shares rows among workers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ray.train import DataConfig


class EveryRow(DataConfig):  # type: ignore[misc]  # Ray is not typed for us
    """Ray Train's sharing of a dataset among workers, without dropping rows to make it even.

    The default gives every worker equally many rows and drops the rest, up to one block per
    worker. Here the shares may differ, and the training loop lets workers run out at
    different steps. What only one worker has needs nobody to deal it out, and no process for that.
    But for this, and for the order, `configure` is that of Ray 2.60.
    """

    def __init__(self, *, learned: Collection[str] = ()) -> None:
        """``learned`` are the datasets that workers train on.

        One worker, too, fetches them by another process, which keeps Ray Data's loop out of it
        while it computes. Their rows come as they stand, whichever task is done first, and as many
        workers get the same of them each time: Ray then deals by how many rows each has had, not by
        where they lie.
        """
        super().__init__()
        self._learned = frozenset(learned)

    def configure(
        self,
        datasets: dict[str, Any],
        world_size: int,
        worker_handles: Any = None,
        worker_node_ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[dict[str, Any]]:
        """One iterator per dataset for each worker; together they give every row once."""
        del worker_handles, kwargs
        shares: list[dict[str, Any]] = [{} for _ in range(world_size)]
        for name, dataset in datasets.items():
            copy = dataset.copy(dataset)
            copy.set_name(name)
            options = self._resolve_execution_options(name)
            options.preserve_order = name in self._learned
            copy.context.execution_options = options
            if world_size == 1 and name not in self._learned:
                shares[0][name] = copy.iterator()
                continue
            splits = copy.streaming_split(world_size, equal=False, locality_hints=worker_node_ids)
            for share, split in zip(shares, splits, strict=True):
                share[name] = split
        return shares
