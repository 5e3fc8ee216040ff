"""From the probes' records to rows of the waits and missed tables, whole arrays at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sltrace.capture import tags
from sltrace.model import POLICIES, STATES, Flag, Kind, WakerContext

if TYPE_CHECKING:
    import pyarrow as pa

_MISSED = {16: "hole", 17: "unstamped"}  # enum kind in probes/wait_record.h
_MISSED_FROM = min(_MISSED)
_HAS_LETTER = np.isin(np.arange(max(STATES) + 2), list(STATES))


class TaskNames(Protocol):
    """Names of threads at a time; see sltrace.names.processes."""

    def comms_for(
        self, tids: NDArray[np.int32], times_ns: NDArray[np.int64]
    ) -> tuple[NDArray[np.int32], list[str]]:
        """Index into a list of names for each thread."""


class GroupNames(Protocol):
    """Paths of cgroups; see sltrace.names.cgroups."""

    def paths_for(self, ids: NDArray[np.int64]) -> tuple[NDArray[np.int32], list[str]]:
        """Index into a list of paths for each id."""


class RowMaker:
    """Turns structured arrays of `struct wait_record` into Arrow tables.

    Args:
        tasks: Names of threads.
        groups: Paths of cgroups.
        node_of_cpu: NUMA node of each CPU.
        min_latency_ns: A record may hold one part that is long enough beside one that is not;
            shorter parts make no row.
        stack_tasks: The asyncio task that a runtime stack is of; sources add to it.
    """

    def __init__(
        self,
        tasks: TaskNames,
        groups: GroupNames,
        node_of_cpu: NDArray[np.uint16],
        min_latency_ns: int,
        stack_tasks: Mapping[int, str],
    ) -> None:
        self._tasks = tasks
        self._groups = groups
        self._node_of_cpu = node_of_cpu
        self._min_latency_ns = min_latency_ns
        self._stack_tasks = stack_tasks

    def waits(self, records: NDArray[Any]) -> pa.Table:
        """Rows of the waits table: one for each part of each record that is a wait."""
        import pyarrow as pa

        if records["kind"].max(initial=0) >= _MISSED_FROM:
            records = records[records["kind"] < _MISSED_FROM]
        parts = _Parts.of(records, self._min_latency_ns)
        spread = parts.spread

        # Everything is worked out once a record and only then spread to its rows.
        end = records["end_ns"].astype(np.int64)
        no_waker = (records["kind"] != Kind.RUNQ_WAKEUP) | (
            records["waker_context"] == WakerContext.NONE
        )
        not_queued = ~parts.in_queue
        no_culprit = not_queued | spread(records["culprit_known"] == 0)
        no_culprit_cgroup = (no_culprit | spread(records["culprit_tid"] == 0)) & ~parts.in_throttle
        wake = spread(records["wake_ns"].astype(np.int64))
        cgroup = records["cgroup"].astype(np.int64)
        own, paths = self._groups.paths_for(cgroup)
        culprit_cgroup = records["culprit_cgroup"].astype(np.int64)
        other, other_paths = self._groups.paths_for(culprit_cgroup)
        no_waker = spread(no_waker)

        def names(field: str, mask: NDArray[np.bool_] | None = None) -> pa.Array:
            indices, known = self._tasks.comms_for(records[field].astype(np.int32), end)
            return named(spread(indices), known, mask)

        def ids(field: str, mask: NDArray[np.bool_] | None = None) -> pa.Array:
            return pa.array(spread(records[field].astype(np.int32)), mask=mask)

        flags = spread(records["flags"])
        flags[not_queued] &= np.uint8(0xFF & ~(Flag.CULPRIT_PARTIAL | Flag.MIGRATED_QUEUED))
        columns: dict[str, pa.Array] = {
            "end_ns": pa.array(parts.end(end)),
            "wait_ns": pa.array(parts.wait),
            "kind": _labels(parts.kind(records["kind"]), {k: k.label for k in Kind}),
            "pid": ids("pid"),
            "tid": ids("tid"),
            "comm": names("tid"),
            "cpu": pa.array(spread(records["cpu"])),
            "prev_cpu": pa.array(spread(records["prev_cpu"])),
            "node": pa.array(spread(self._node_of_cpu[records["cpu"]])),
            "migrated": pa.array(spread(records["cpu"] != records["prev_cpu"])),
            "wake_ns": pa.array(wake, mask=not_queued | (wake == 0)),
            "cgroup_id": pa.array(spread(cgroup)),
            "cgroup": named(spread(own), paths),
            "policy": _labels(spread(records["policy"]), POLICIES),
            "prio": pa.array(spread(records["prio"])),
            "nice": pa.array(spread(records["nice"])),
            "state": _labels(spread(_known_state(records["state"])), STATES),
            "waker_pid": ids("waker_pid", no_waker),
            "waker_tid": ids("waker_tid", no_waker),
            "waker_comm": names("waker_tid", no_waker),
            "waker_context": _labels(
                spread(records["waker_context"]), {c: c.label for c in WakerContext}, no_waker
            ),
            "culprit_pid": ids("culprit_pid", no_culprit),
            "culprit_tid": ids("culprit_tid", no_culprit),
            "culprit_comm": names("culprit_tid", no_culprit),
            # The culprit of a throttled wait is the quota of the task's own cgroup.
            "culprit_cgroup_id": pa.array(
                parts.throttle_or(cgroup, culprit_cgroup), mask=no_culprit_cgroup
            ),
            "culprit_cgroup": named(
                parts.throttle_or(own + np.int32(len(other_paths)), other),
                other_paths + paths,
                no_culprit_cgroup,
            ),
            "culprit_ns": pa.array(
                np.where(
                    parts.in_throttle, parts.wait, spread(records["culprit_ns"].astype(np.int64))
                ),
                mask=no_culprit & ~parts.in_throttle,
            ),
            "culprit_others": pa.array(spread(records["culprit_others"]), mask=no_culprit),
            "flags": pa.array(flags),
        }
        for name in ("stack_kernel", "stack_user", "waker_stack_kernel", "waker_stack_user"):
            if name in (records.dtype.names or ()):
                stack = spread(records[name].astype(np.int64))
                columns[name] = pa.array(stack, mask=stack == 0)
        if "tag" in (records.dtype.names or ()):
            columns |= tags.columns(records["tag"], spread)
            stacks = spread(records["tag"]["stack_runtime"])
            columns["task"] = tags.tasks(stacks, self._stack_tasks)
            columns["reason"] = tags.reasons(
                records["tag"], spread, not_queued & ~parts.in_throttle
            )
        return pa.table(columns)

    def missed(self, records: NDArray[Any]) -> pa.Table:
        """Rows of the missed table: waits that were not seen whole, with their bounds."""
        import pyarrow as pa

        records = records[records["kind"] >= _MISSED_FROM]
        tid = records["tid"].astype(np.int32)
        end = records["end_ns"].astype(np.int64)
        low = records["runq_ns"].astype(np.int64)
        return pa.table(
            {
                "cpu": pa.array(records["cpu"]),
                "pid": pa.array(records["pid"].astype(np.int32)),
                "tid": pa.array(tid),
                "comm": named(*self._tasks.comms_for(tid, end)),
                "cause": _labels(records["kind"], _MISSED),
                "end_ns": pa.array(end),
                "low_ns": pa.array(low),
                "high_ns": pa.array(np.maximum(records["wake_ns"].astype(np.int64), low)),
            }
        )


@dataclass(frozen=True)
class _Parts:
    """How records become rows: first those of the queue, then throttled, then blocked parts.

    Attributes:
        rows: Indices of the records behind each of the three; a slice where it is all of them.
        wait: Length of each row's wait.
        in_queue: Whether a row is a queue part; likewise in_throttle.
        after: For each row, how long after the end of its own part the record ended.
    """

    rows: tuple[slice | NDArray[np.intp], ...]
    wait: NDArray[np.int64]
    in_queue: NDArray[np.bool_]
    in_throttle: NDArray[np.bool_]
    after: NDArray[np.int64]

    @classmethod
    def of(cls, records: NDArray[Any], least_ns: int) -> _Parts:
        """Cuts records into parts; those under `least_ns` are left out."""
        runq, throttled, blocked = (
            records[name].astype(np.int64) for name in ("runq_ns", "throttled_ns", "blocked_ns")
        )
        queued = runq - throttled
        is_queued = ((queued > 0) | (throttled == 0)) & (queued >= least_ns)
        rows = (
            slice(None) if is_queued.all() else np.flatnonzero(is_queued),
            np.flatnonzero((throttled > 0) & (throttled >= least_ns)),
            np.flatnonzero((blocked > 0) & (blocked >= least_ns)),
        )
        waits = [queued[rows[0]], throttled[rows[1]], blocked[rows[2]]]
        part = np.repeat(np.arange(3, dtype=np.int8), [len(w) for w in waits])
        after = np.concatenate([np.zeros(len(waits[0]), np.int64), queued[rows[1]], runq[rows[2]]])
        return cls(rows, np.concatenate(waits), part == 0, part == 1, after)

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """From one value a record to one a row."""
        return np.concatenate([values[rows] for rows in self.rows])

    def throttle_or(self, throttled: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
        """Like `spread`, of `throttled` for throttled rows and of `other` for the rest."""
        queue, throttle, block = self.rows
        return np.concatenate([other[queue], throttled[throttle], other[block]])

    def end(self, end: NDArray[np.int64]) -> NDArray[np.int64]:
        """When each row's part ended."""
        ended: NDArray[np.int64] = self.spread(end) - self.after
        return ended

    def kind(self, kind: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Kind of each row."""
        kinds = self.spread(kind)
        kinds[self.in_throttle] = Kind.THROTTLED
        kinds[~self.in_queue & ~self.in_throttle] = Kind.BLOCKED
        return kinds


def _known_state(state: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """States reduced to those with a letter: the lowest known bit decides."""
    known = _HAS_LETTER[np.minimum(state, len(_HAS_LETTER) - 1)]
    if known.all():
        return state
    # Bits beyond the letters (TASK_WAKEKILL, TASK_FREEZABLE ...) qualify a basic state.
    basic = state & np.uint16(0x7F)
    lowest = basic & (~basic + np.uint16(1))
    return np.where(known, state, lowest).astype(np.uint16)


def _labels(
    values: NDArray[Any], names: dict[Any, str], mask: NDArray[np.bool_] | None = None
) -> pa.Array:
    """Small numbers as dictionary-encoded names; a number without a name stays a number."""
    size = max(int(values.max(initial=0)), max(int(k) for k in names)) + 1
    if size <= 2048:
        labels = [names.get(i, str(i)) for i in range(size)]
        return named(values.astype(np.int32), labels, mask)
    present, indices = np.unique(values, return_inverse=True)
    return named(indices.astype(np.int32), [names.get(int(v), str(v)) for v in present], mask)


def named(
    indices: NDArray[np.int32], names: list[str], mask: NDArray[np.bool_] | None = None
) -> pa.Array:
    """Indices into a list of names as a dictionary-encoded column; null where `mask`."""
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(
        pa.array(indices, mask=mask), pa.array(names, pa.string())
    )
