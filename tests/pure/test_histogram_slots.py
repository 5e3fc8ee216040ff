"""Histogram slots: whose waits they count, and how they are used anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sltrace.capture.histograms import HistogramIntervals, SlotUse
from tests.support.machine import Kernel, Machine, Task, layouts
from tests.support.waits import two_tasks

_SHARED = -1
_RUNQ_WAKEUP = 0


class _Names:
    def paths_for(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int32], list[str]]:
        known, index = np.unique(ids, return_inverse=True)
        return index.astype(np.int32), [f"/{one}" for one in known.tolist()]


class _Recording:
    """One task that waits in one cgroup after the other, on a CPU with 16 slots."""

    def __init__(self) -> None:
        self.machine: Machine
        self.kernel: Kernel
        self._other: Task
        self._task: Task
        self.machine, self.kernel, self._other, self._task = two_tasks(
            histogram_only=1, slots_per_cpu=16
        )
        self._intervals = HistogramIntervals(_Names(), self.machine.slots)

    def wait_in(self, cgroup: int) -> None:
        self._task.struct.cgroup = cgroup
        self.kernel.wake(self._task, 0, 0, 5)
        self.kernel.tick(100)
        self.kernel.switch(0, self._task, "preempt")
        self.kernel.tick(10)
        self.kernel.switch(0, self._other, "block")

    def interval(self) -> dict[int, int]:
        """Ends one; waits after a wakeup by cgroup, which both tables agree on."""
        histograms, sums = self._intervals.rows(0, 1)
        counted, summed = _by_cgroup(histograms), _by_cgroup(sums)
        assert counted == summed
        return counted

    def sums(self) -> list[tuple[int, int]]:
        """Ends one; the counts and sums of its rows."""
        _, sums = self._intervals.rows(0, 1)
        return [(row["count"], row["sum_ns"]) for row in sums.to_pylist()]

    def use(self, cgroup: int) -> SlotUse:
        owners: NDArray[Any] = self.machine.slots.owners
        return SlotUse(owners["use"][owners["cgroup"] == cgroup][0])


def _by_cgroup(table: pa.Table) -> dict[int, int]:
    found: dict[int, int] = {}
    for row in table.to_pylist():
        if row["kind"] == "runq_wakeup":
            found[row["cgroup_id"]] = found.get(row["cgroup_id"], 0) + row["count"]
    return found


def test_uses_are_numbered_as_in_the_probes() -> None:
    assert {f"SLOT_{u.name}": u.value for u in SlotUse} == layouts().enumerators("slot_use")


def test_cgroups_that_come_and_go_all_have_a_slot_of_their_own() -> None:
    recording = _Recording()
    for cgroup in range(1000, 1300):
        recording.wait_in(cgroup)
        recording.wait_in(cgroup)
        assert recording.interval() == {cgroup: 2}
    assert recording.machine.counter("slots_full") == 0


def test_what_finds_no_slot_is_counted_as_such_until_there_is_one() -> None:
    recording = _Recording()
    for cgroup in range(1000, 1060):
        recording.wait_in(cgroup)
    counted = recording.interval()
    full = recording.machine.counter("slots_full")
    assert counted[_SHARED] == full > 60 - 16
    assert sum(counted.values()) == 60
    for _ in range(6):
        assert recording.interval() == {}
    recording.wait_in(2000)
    assert recording.interval() == {2000: 1}


def test_a_slot_that_is_counted_in_is_kept_beside_others_that_are_not() -> None:
    recording = _Recording()
    recording.wait_in(5)
    slot = recording.machine.slots.owners["cgroup"].tolist().index(5)
    for cgroup in range(1000, 1100):
        recording.wait_in(cgroup)
        recording.wait_in(5)
        assert recording.interval()[5] >= 1
    assert recording.machine.slots.owners["cgroup"][slot] == 5
    assert recording.use(5) == SlotUse.USED


def test_what_was_being_counted_while_a_slot_was_retired_is_its_owners() -> None:
    recording = _Recording()
    for cgroup in range(1000, 1010):
        recording.wait_in(cgroup)
    recording.interval()
    while recording.use(1003) == SlotUse.USED:
        assert recording.interval() == {}
    # Its CPU looked at whose it is before, and counts now.
    index = recording.machine.slots.owners["cgroup"].tolist().index(1003)
    counts = recording.machine.slots.counts["kinds"]
    counts["count"][index, _RUNQ_WAKEUP, 3] += 1
    counts["sum_ns"][index, _RUNQ_WAKEUP] += 50
    assert recording.interval() == {1003: 1}
    assert recording.use(1003) == SlotUse.FREE


def test_a_task_does_not_count_in_the_slot_it_had_once_that_is_anothers() -> None:
    recording = _Recording()
    recording.wait_in(7)
    slots = recording.machine.slots
    index = slots.owners["cgroup"].tolist().index(7)
    recording.interval()
    slots.owners["cgroup"][index] = 8
    recording.wait_in(7)
    assert recording.interval() == {7: 1}


def test_a_sum_that_is_seen_before_its_count_is_not_lost() -> None:
    recording = _Recording()
    recording.wait_in(5)
    index = recording.machine.slots.owners["cgroup"].tolist().index(5)
    recording.interval()
    counts = recording.machine.slots.counts["kinds"]
    counts["sum_ns"][index, _RUNQ_WAKEUP] += 50
    first = recording.sums()
    counts["count"][index, _RUNQ_WAKEUP, 3] += 1
    assert first + recording.sums() == [(0, 50), (1, 0)]
