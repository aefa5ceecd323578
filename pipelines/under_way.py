"""A bound on the units that are between their first stage and their last.

Ray Data bounds the bytes that wait between stages, by a share of the object store. Small units all
fit into that, and then the first stage runs ahead to the end of the night: whatever is killed at
half way has fetched and decoded everything, for nothing. This policy counts units.
"""

from __future__ import annotations

from typing import Any

from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
    BackpressurePolicy,
)
from ray.data._internal.execution.operators.input_data_buffer import InputDataBuffer

_LIMIT = "fcn.units_under_way"


def limit_units(context: Any, units: int) -> None:
    """Let datasets that are made in ``context`` have at most so many rows between their stages.

    Each row must be a block of its own. Uses what Ray Data keeps internal: pyproject holds Ray to
    versions for which the tests show that it works.
    """
    context.set_config(_LIMIT, units)
    policies = [*ENABLED_BACKPRESSURE_POLICIES, UnitsUnderWay]
    context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, policies)


class UnitsUnderWay(BackpressurePolicy):  # type: ignore[misc]  # Ray is not typed for us
    """Holds the first stage back while the limit is reached.

    Ray overrules it while nothing at all runs, as when the only actor has died and starts anew.
    """

    def can_add_input(self, op: Any) -> bool:
        """Whether a stage may begin with another unit."""
        if not any(isinstance(given, InputDataBuffer) for given in op.input_dependencies):
            return True
        limit: int = self._data_context.get_config(_LIMIT)
        return self._under_way(op) < limit

    def _under_way(self, first: Any) -> int:
        """Units that the first stage works on, and those that are in or before a later one.

        What Ray has dropped because its worker died is in none, and takes no place.
        """
        stages = [state for op, state in self._topology.items() if op.input_dependencies]
        waiting = sum(state.total_enqueued_input_blocks() for state in stages if state.op != first)
        return waiting + sum(state.op.num_active_tasks() for state in stages)
