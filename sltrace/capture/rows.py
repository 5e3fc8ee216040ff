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

        fields, end = parts.fields, parts.end_ns
        kind = fields["kind"]
        no_waker = Nulls(
            (kind != Kind.RUNQ_WAKEUP) | (fields["waker_context"] == WakerContext.NONE)
        )
        kind[parts.throttled] = Kind.THROTTLED
        kind[parts.blocked] = Kind.BLOCKED
        fields["flags"][parts.queued.stop :] &= _FLAGS_OF_ALL
        cgroup, culprit_cgroup, culprit_ns, wake = (
            fields[name].view(np.int64)
            for name in ("cgroup", "culprit_cgroup", "culprit_ns", "wake_ns")
        )
        # The culprit of a throttled wait is a quota.
        culprit_cgroup[parts.throttled] = self._quotas.holding(cgroup[parts.throttled])
        culprit_ns[parts.throttled] = parts.wait_ns[parts.throttled]
        unknown = fields["culprit_known"] == 0
        no_culprit = Nulls(unknown)
        unknown[parts.throttled] = False
        no_culprit_ns = Nulls(unknown)
        idle = fields["culprit_tid"] == 0
        idle[parts.throttled] = False
        no_culprit_cgroup = Nulls(unknown | idle)

        def plain(field: str, nulls: Nulls | None = None) -> pa.Array:
            return numbers(fields[field], nulls)

        def ids(field: str, nulls: Nulls | None = None) -> pa.Array:
            return numbers(fields[field].view(np.int32), nulls)

        def comms(field: str, nulls: Nulls | None = None) -> pa.Array:
            found, names = self._tasks.comms_for(fields[field].view(np.int32), end)
            return named(found, self._dictionaries.of(names), nulls)

        def paths(ids: NDArray[np.int64], nulls: Nulls | None = None) -> pa.Array:
            found, names = self._groups.paths_for(ids)
            return named(found, self._dictionaries.of(names), nulls)

        columns: dict[str, pa.Array] = {
            "end_ns": numbers(end),
            "wait_ns": numbers(parts.wait_ns),
            "kind": KINDS.column(kind),
            "pid": ids("pid"),
            "tid": ids("tid"),
            "comm": comms("tid"),
            "cpu": plain("cpu"),
            "prev_cpu": plain("prev_cpu"),
            "node": numbers(self._node_of_cpu[fields["cpu"]]),
            "migrated": pa.array(fields["cpu"] != fields["prev_cpu"]),
            "wake_ns": nonzero(wake),
            "cgroup_id": numbers(cgroup),
            "cgroup": paths(cgroup),
            "policy": POLICY_NAMES.column(fields["policy"]),
            "prio": plain("prio"),
            "nice": plain("nice"),
            "state": _STATES.column(_letters()[fields["state"]]),
            "waker_pid": ids("waker_pid", no_waker),
            "waker_tid": ids("waker_tid", no_waker),
            "waker_comm": comms("waker_tid", no_waker),
            "waker_context": _CONTEXTS.column(fields["waker_context"], no_waker),
            "culprit_pid": ids("culprit_pid", no_culprit),
            "culprit_tid": ids("culprit_tid", no_culprit),
            "culprit_comm": comms("culprit_tid", no_culprit),
            "culprit_cgroup_id": numbers(culprit_cgroup, no_culprit_cgroup),
            "culprit_cgroup": paths(culprit_cgroup, no_culprit_cgroup),
            "culprit_ns": numbers(culprit_ns, no_culprit_ns),
            "culprit_others": plain("culprit_others", no_culprit),
            "flags": plain("flags"),
        }
        for name in ("stack_kernel", "stack_user", "waker_stack_kernel", "waker_stack_user"):
            if name in fields:
                columns[name] = nonzero(fields[name].view(np.int64))
        if "tag" in fields:
            self._doubted.take_out(fields["pid"], fields["tag"])
            columns |= tags.columns(fields["tag"])
            columns["reason"] = tags.reasons(fields["tag"], kind == Kind.BLOCKED)
            columns["task"] = self._asyncio_tasks.column(fields["tag"])
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
