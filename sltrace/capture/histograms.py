"""Histograms that the probes keep, per interval, and the slots that they keep them in."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sltrace.buckets import lower_bounds
from sltrace.capture.columns import POLICY_NAMES, named
from sltrace.capture.rows import GroupNames
from sltrace.model import SCHEDULER_KINDS

if TYPE_CHECKING:
    import pyarrow as pa

_SHARED_CGROUP = -1
_KINDS = [k.label for k in SCHEDULER_KINDS]

_CROWDED = 0.5
"""Share of a CPU's slots in use from which on those that are not counted in are retired."""

_UNUSED_INTERVALS = 3


class SlotUse(IntEnum):
    """enum slot_use in probes/wait_record.h."""

    FREE = 0
    USED = 1
    RETIRED = 2


@dataclass(frozen=True)
class Slots:
    """The slots, of each CPU as many after the other, in memory that the kernel shares.

    Attributes:
        counts: `struct histogram_slot` of each.
        owners: `struct slot_owner` of each; writable.
        per_cpu: How many a CPU has; the first of them takes the waits that found no other.
    """

    counts: NDArray[Any]
    owners: NDArray[Any]
    per_cpu: int


class HistogramIntervals:
    """Differences of the histogram slots, summed over CPUs.

    A slot is only needed while it is counted in: where half of a CPU's are in use, those that
    were not counted in for three intervals are used anew. So cgroups that are gone leave no slot.

    Args:
        groups: Paths of cgroups.
        slots: What is in them already does not count.
    """

    def __init__(self, groups: GroupNames, slots: Slots) -> None:
        self._groups = groups
        self._slots = slots
        kinds = slots.counts["kinds"]
        # Not zeros_like, which writes them: of slots that are never used no page is touched.
        self._counts = np.zeros(kinds["count"].shape, np.uint32)
        self._sums = np.zeros(kinds["sum_ns"].shape, np.uint64)
        self._unused = np.zeros(len(slots.owners), np.uint32)
        self._changes(self._in_use(slots.owners))

    def rows(self, start_ns: int, end_ns: int) -> tuple[pa.Table, pa.Table]:
        """Rows of histograms and histogram_sums for what changed since the last call."""
        import pyarrow as pa

        owners = self._slots.owners.copy()
        at = self._in_use(owners)
        counts, sums = self._changes(at)
        self._use_anew(owners, at[counts.any(axis=(1, 2))])

        shared = at % self._slots.per_cpu == 0
        cgroup = np.where(shared, _SHARED_CGROUP, owners["cgroup"][at].astype(np.int64))
        policy = np.where(shared, 0, owners["policy"][at].astype(np.int64))
        keys, group = np.unique(np.stack([cgroup, policy]), axis=1, return_inverse=True)
        by_group = np.zeros((keys.shape[1], *counts.shape[1:]), np.int64)
        np.add.at(by_group, group, counts.astype(np.int64))
        sum_by_group = np.zeros((keys.shape[1], *sums.shape[1:]), np.int64)
        np.add.at(sum_by_group, group, sums.astype(np.int64))

        row, kind, bucket = np.nonzero(by_group)
        histogram = self._common(keys, row, kind, start_ns, end_ns)
        histogram["bucket"] = pa.array(bucket.astype(np.uint8))
        histogram["low_ns"] = pa.array(lower_bounds()[bucket])
        histogram["count"] = pa.array(by_group[row, kind, bucket])

        totals = by_group.sum(axis=2)
        # What is counted while the slots are read may be in this interval's sums only, or counts.
        row, kind = np.nonzero((totals != 0) | (sum_by_group != 0))
        summed = self._common(keys, row, kind, start_ns, end_ns)
        summed["count"] = pa.array(totals[row, kind])
        summed["sum_ns"] = pa.array(sum_by_group[row, kind])
        return pa.table(histogram), pa.table(summed)

    def _in_use(self, owners: NDArray[Any]) -> NDArray[np.intp]:
        """Indices of the slots that may have been counted in, the shared ones among them."""
        used = owners["use"] != SlotUse.FREE
        used[:: self._slots.per_cpu] = True
        return np.flatnonzero(used)

    def _changes(self, at: NDArray[np.intp]) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """What was added to the counts and sums of slots since the last call."""
        kinds = self._slots.counts["kinds"]
        # Counts are 32 bits and wrap; so does their difference, to the right value.
        counts, sums = kinds["count"][at], kinds["sum_ns"][at]
        changes = counts - self._counts[at], sums - self._sums[at]
        self._counts[at], self._sums[at] = counts, sums
        return changes

    def _use_anew(self, owners: NDArray[Any], changed: NDArray[np.intp]) -> None:
        """Frees the slots that were retired an interval ago, and retires more where needed."""
        used, retired = owners["use"] == SlotUse.USED, owners["use"] == SlotUse.RETIRED
        self._unused[used] += 1
        self._unused[changed] = 0
        self._unused[retired] = 0
        per_cpu = self._slots.per_cpu
        crowded = (used | retired).reshape(-1, per_cpu).mean(axis=1) >= _CROWDED
        idle = used & (self._unused >= _UNUSED_INTERVALS) & crowded.repeat(per_cpu)
        self._slots.owners["use"][retired] = SlotUse.FREE
        self._slots.owners["use"][idle] = SlotUse.RETIRED

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
