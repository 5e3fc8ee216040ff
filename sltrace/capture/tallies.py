"""What the probes count, per interval, from the table they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sltrace.capture.columns import named
from sltrace.trace.schema import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

CLASSES = {
    "switches": "info",
    "records": "info",
    "below_min": "discard",
    "ring_full": "loss",
    "holes": "loss",
    "switches_lost": "info",
    "unstamped": "loss",
    "state_lost": "loss",
    "clock_backwards": "discard",
    "slots_full": "info",
    "stacks_capped": "discard",
    "stacks_failed": "partial",
    "stack_ring_full": "partial",
    "task_ring_full": "partial",
    "cgroup_ring_full": "partial",
    "not_followed": "partial",
}
"""Counter (enum counter in probes/wait_record.h) to its class in the counters table."""


class CounterIntervals:
    """Differences of counters per CPU.

    Args:
        names: Of the counters.
        values: Where they begin; shape (CPUs, counters).
        classes: Name to class.
    """

    def __init__(
        self, names: list[str], values: NDArray[np.uint64], classes: dict[str, str] = CLASSES
    ) -> None:
        self._names = names
        self._last = values
        self._classes = [classes[n] for n in names]

    def rows(self, values: NDArray[np.uint64], start_ns: int, end_ns: int) -> pa.Table:
        """Rows of the counters table for what changed; shape of `values` (CPUs, counters)."""
        import pyarrow as pa

        change = (values - self._last).astype(np.int64)
        self._last = values
        if not change.any():
            return arrow_schema("counters").empty_table()
        cpu, name = np.nonzero(change)
        index = name.astype(np.int32)
        return pa.table(
            {
                "start_ns": pa.array(np.full(len(cpu), start_ns)),
                "end_ns": pa.array(np.full(len(cpu), end_ns)),
                "cpu": pa.array(cpu.astype(np.uint16)),
                "name": named(index, self._names),
                "class": named(index, self._classes),
                "value": pa.array(change[cpu, name]),
            }
        )

    def total(self, name: str) -> int:
        """A counter over all CPUs since the probes were loaded."""
        return int(self._last[:, self._names.index(name)].sum())
