"""From the probes' records to rows of the waits and missed tables, whole arrays at a time."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sltrace.capture import tags
from sltrace.capture.asynciotasks import AsyncioTasks
from sltrace.capture.columns import (
    KINDS,
    POLICY_NAMES,
    Dictionaries,
    Labels,
    Nulls,
    named,
    nonzero,
    numbers,
)
from sltrace.capture.parts import Parts
from sltrace.model import STATES, Flag, Kind, WakerContext
from sltrace.trace.schema import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

_CAUSES = Labels({16: "hole", 17: "unstamped"})
"""enum kind in probes/wait_record.h"""
_LETTERS = list(dict.fromkeys(STATES.values()))
_STATES = Labels(dict(enumerate(_LETTERS)))
_CONTEXTS = Labels({context: context.label for context in WakerContext})
_FLAGS_OF_ALL = np.uint8(0xFF & ~(Flag.CULPRIT_PARTIAL | Flag.MIGRATED_QUEUED))
"""The others are of waits in queues."""


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


class QuotaHolders(Protocol):
    """Whose quotas hold cgroups; see sltrace.names.quotas."""

    def holding(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """The cgroup whose quota held each of these, just now."""


class RowMaker:
    """Turns structured arrays of `struct wait_record` into Arrow tables.

    Args:
        tasks: Names of threads.
        groups: Paths of cgroups.
        quotas: Whose quota it was where a cgroup was throttled.
        node_of_cpu: NUMA node of each CPU.
        min_latency_ns: A record may hold one part that is long enough beside one that is not;
            shorter parts make no row.
        asyncio_tasks: What asyncio tasks are called; sources add to it.
        doubted: Ids that sources have doubts about.
    """

    def __init__(
        self,
        *,
        tasks: TaskNames,
        groups: GroupNames,
        quotas: QuotaHolders,
        node_of_cpu: NDArray[np.uint16],
        min_latency_ns: int,
        asyncio_tasks: AsyncioTasks,
        doubted: tags.Doubted,
    ) -> None:
        self._tasks = tasks
        self._groups = groups
        self._quotas = quotas
        self._node_of_cpu = node_of_cpu
        self._min_latency_ns = min_latency_ns
        self._asyncio_tasks = asyncio_tasks
        self._doubted = doubted
        self._dictionaries = Dictionaries()

    def tables(self, records: list[NDArray[Any]]) -> tuple[pa.Table, pa.Table]:
        """Rows of the waits table, one for each part of each record that is a wait, and of the
        missed table: waits that were not seen whole, with their bounds.

        Args:
            records: At least one array; all of one type. They are taken out of the list.
        """
        parts = Parts.of(records, self._min_latency_ns)
        # A fifth of the memory that a lot takes until it is written (measured).
        records.clear()
        return self._waits(parts), self._missed(parts.missed)

    def _waits(self, parts: Parts) -> pa.Table:
        import pyarrow as pa

        records, queues, end = parts.of_records, parts.of_queues, parts.end_ns
        not_woken = (records["kind"] != Kind.RUNQ_WAKEUP) | (
            records["waker_context"] == WakerContext.NONE
        )
        no_waker = Nulls(not_woken)
        kind = parts.a_wait(records["kind"])
        kind[parts.throttled] = Kind.THROTTLED
        kind[parts.blocked] = Kind.BLOCKED
        flags = parts.a_wait(records["flags"])
        flags[parts.queued.stop :] &= _FLAGS_OF_ALL
        cgroup = records["cgroup"].view(np.int64)
        culprit_cgroup, culprit_ns, wake = (
            queues[name].view(np.int64) for name in ("culprit_cgroup", "culprit_ns", "wake_ns")
        )
        # The culprit of a throttled wait is a quota.
        _, held, _ = parts.records
        culprit_cgroup[parts.throttled] = self._quotas.holding(cgroup[held])
        culprit_ns[parts.throttled] = parts.wait_ns[parts.throttled]
        unknown = queues["culprit_known"] == 0
        no_culprit = Nulls(unknown)
        unknown[parts.throttled] = False
        no_culprit_ns = Nulls(unknown)
        idle = queues["culprit_tid"] == 0
        idle[parts.throttled] = False
        no_culprit_cgroup = Nulls(unknown | idle)

        def shared(column: pa.Array) -> pa.ChunkedArray:
            return pa.chunked_array([column[part] for part in parts.records])

        def plain(field: str) -> pa.ChunkedArray:
            return shared(numbers(records[field]))

        def ids(field: str, nulls: Nulls | None = None) -> pa.ChunkedArray:
            return shared(numbers(records[field].view(np.int32), nulls))

        def culprits(field: str) -> pa.Array:
            return numbers(queues[field].view(np.int32), no_culprit)

        def comms(tids: NDArray[Any], nulls: Nulls | None = None) -> pa.Array:
            found, names = self._tasks.comms_for(tids.view(np.int32), end)
            return named(found, self._dictionaries.of(names), nulls)

        def paths(ids: NDArray[np.int64], nulls: Nulls | None = None) -> pa.Array:
            found, names = self._groups.paths_for(ids)
            return named(found, self._dictionaries.of(names), nulls)

        columns: dict[str, pa.Array | pa.ChunkedArray] = {
            "end_ns": numbers(end),
            "wait_ns": numbers(parts.wait_ns),
            "kind": KINDS.column(kind),
            "pid": ids("pid"),
            "tid": ids("tid"),
            "comm": comms(parts.a_wait(records["tid"])),
            "cpu": plain("cpu"),
            "prev_cpu": plain("prev_cpu"),
            "node": shared(numbers(self._node_of_cpu[records["cpu"]])),
            "migrated": shared(pa.array(records["cpu"] != records["prev_cpu"])),
            "wake_ns": nonzero(wake),
            "cgroup_id": shared(numbers(cgroup)),
            "cgroup": shared(paths(cgroup)),
            "policy": shared(POLICY_NAMES.column(records["policy"])),
            "prio": plain("prio"),
            "nice": plain("nice"),
            "state": shared(_STATES.column(_letters()[records["state"]])),
            "waker_pid": ids("waker_pid", no_waker),
            "waker_tid": ids("waker_tid", no_waker),
            "waker_comm": comms(parts.a_wait(records["waker_tid"]), Nulls(parts.a_wait(not_woken))),
            "waker_context": shared(_CONTEXTS.column(records["waker_context"], no_waker)),
            "culprit_pid": culprits("culprit_pid"),
            "culprit_tid": culprits("culprit_tid"),
            "culprit_comm": comms(queues["culprit_tid"], no_culprit),
            "culprit_cgroup_id": numbers(culprit_cgroup, no_culprit_cgroup),
            "culprit_cgroup": paths(culprit_cgroup, no_culprit_cgroup),
            "culprit_ns": numbers(culprit_ns, no_culprit_ns),
            "culprit_others": numbers(queues["culprit_others"], no_culprit),
            "flags": numbers(flags),
        }
        # Of what no record has, no column: that costs a tenth (measured).
        for name in ("stack_kernel", "stack_user", "waker_stack_kernel", "waker_stack_user"):
            if name in records and records[name].any():
                columns[name] = shared(nonzero(records[name].view(np.int64)))
        if "tag" in records and records["tag"].view(np.uint64).any():
            tag = records["tag"]
            self._doubted.take_out(records["pid"], tag)
            columns |= {name: shared(column) for name, column in tags.columns(tag).items()}
            columns["reason"] = tags.reasons(parts.a_wait(tag["reason"]), kind == Kind.BLOCKED)
            columns["task"] = shared(self._asyncio_tasks.column(tag))
        return pa.table(columns)

    def _missed(self, records: NDArray[Any]) -> pa.Table:
        import pyarrow as pa

        if not len(records):
            return arrow_schema("missed").empty_table()
        tid = records["tid"].astype(np.int32)
        end = records["end_ns"].astype(np.int64)
        low = records["runq_ns"].astype(np.int64)
        return pa.table(
            {
                "cpu": pa.array(records["cpu"]),
                "pid": pa.array(records["pid"].astype(np.int32)),
                "tid": pa.array(tid),
                "comm": named(*self._tasks.comms_for(tid, end)),
                "cause": _CAUSES.column(records["kind"]),
                "end_ns": pa.array(end),
                "low_ns": pa.array(low),
                "high_ns": pa.array(np.maximum(records["wake_ns"].astype(np.int64), low)),
            }
        )


@cache
def _letters() -> NDArray[np.int32]:
    """Of each number that the kernel may give as a task's state, which of the letters it has."""
    states = np.arange(1 << 16)
    which = np.zeros(len(states), np.int32)
    for bits, letter in STATES.items():
        which[states & bits == bits] = _LETTERS.index(letter)
    return which
