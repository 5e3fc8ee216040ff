"""What the probes count, per interval: histograms and counters, from the tables they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sltrace.buckets import lower_bounds
from sltrace.capture.columns import POLICY_NAMES, named
from sltrace.capture.rows import GroupNames
from sltrace.model import SCHEDULER_KINDS
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

_OVERFLOW_CGROUP = -1
_KINDS = [k.label for k in SCHEDULER_KINDS]


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


class HistogramIntervals:
    """Differences of the histogram slots, summed over CPUs.

    Args:
        slots: All slots in use (`struct histogram_slot`), the first `cpus` of them shared.
    """

    def __init__(self, groups: GroupNames, slots: NDArray[Any], cpus: int) -> None:
        self._groups = groups
        self._cpus = cpus
        self._counts = slots["kinds"]["count"].copy()
        self._sums = slots["kinds"]["sum_ns"].copy()

    def rows(self, slots: NDArray[Any], start_ns: int, end_ns: int) -> tuple[pa.Table, pa.Table]:
        """Rows of histograms and histogram_sums for what changed since the last call."""
        import pyarrow as pa

        counts, sums = slots["kinds"]["count"].copy(), slots["kinds"]["sum_ns"].copy()
        old = len(self._counts)
        # Counts are 32 bits and wrap; so does their difference, to the right value.
        count_change = counts.copy()
        count_change[:old] -= self._counts
        sum_change = sums.copy()
        sum_change[:old] -= self._sums
        self._counts, self._sums = counts, sums

        cgroup = slots["cgroup"].astype(np.int64)
        policy = slots["policy"].astype(np.int64)
        cgroup[: self._cpus] = _OVERFLOW_CGROUP
        policy[: self._cpus] = 0
        keys, group = np.unique(np.stack([cgroup, policy]), axis=1, return_inverse=True)
        by_group = np.zeros((keys.shape[1], *counts.shape[1:]), np.int64)
        np.add.at(by_group, group, count_change.astype(np.int64))
        sum_by_group = np.zeros((keys.shape[1], *sums.shape[1:]), np.int64)
        np.add.at(sum_by_group, group, sum_change.astype(np.int64))

        row, kind, bucket = np.nonzero(by_group)
        histogram = self._common(keys, row, kind, start_ns, end_ns)
        histogram["bucket"] = pa.array(bucket.astype(np.uint8))
        histogram["low_ns"] = pa.array(lower_bounds()[bucket])
        histogram["count"] = pa.array(by_group[row, kind, bucket])

        totals = by_group.sum(axis=2)
        row, kind = np.nonzero(totals)
        summed = self._common(keys, row, kind, start_ns, end_ns)
        summed["count"] = pa.array(totals[row, kind])
        summed["sum_ns"] = pa.array(sum_by_group[row, kind])
        return pa.table(histogram), pa.table(summed)

    def _common(
        self,
        keys: NDArray[np.int64],
        row: NDArray[np.intp],
        kind: NDArray[np.intp],
        start_ns: int,
        end_ns: int,
    ) -> dict[str, pa.Array]:
        import pyarrow as pa

        ids = keys[0][row]
        indices, paths = self._groups.paths_for(ids)
        return {
            "start_ns": pa.array(np.full(len(row), start_ns)),
            "end_ns": pa.array(np.full(len(row), end_ns)),
            "cgroup_id": pa.array(ids),
            "cgroup": named(indices, paths),
            "policy": POLICY_NAMES.column(keys[1][row]),
            "kind": named(kind.astype(np.int32), _KINDS),
        }
