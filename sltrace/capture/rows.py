"""From the probes' records to rows of the waits and missed tables, whole arrays at a time."""

from __future__ import annotations

from dataclasses import dataclass
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
from sltrace.model import STATES, Flag, Kind, WakerContext
from sltrace.trace.schema import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

_MISSED_FROM = 16
_CAUSES = Labels({16: "hole", 17: "unstamped"})
"""enum kind in probes/wait_record.h"""
_STATES = Labels(STATES)
_CONTEXTS = Labels({context: context.label for context in WakerContext})
_QUEUE, _THROTTLE, _BLOCK = range(3)
"""Parts of a record."""
_KIND_OF_PART = np.array([0, Kind.THROTTLED, Kind.BLOCKED], np.uint8)
_PIECE = 8192
"""Records taken apart at a time, 900 kB: a field then costs 0.6 ns, not 3.2 (measured), as the
one before has brought the records into the cache."""
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
        asyncio_tasks: What asyncio tasks are called; sources add to it.
    """

    def __init__(
        self,
        tasks: TaskNames,
        groups: GroupNames,
        node_of_cpu: NDArray[np.uint16],
        min_latency_ns: int,
        asyncio_tasks: AsyncioTasks,
    ) -> None:
        self._tasks = tasks
        self._groups = groups
        self._node_of_cpu = node_of_cpu
        self._min_latency_ns = min_latency_ns
        self._asyncio_tasks = asyncio_tasks
        self._dictionaries = Dictionaries()

    def waits(self, records: NDArray[Any]) -> pa.Table:
        """Rows of the waits table: one for each part of each record that is a wait."""
        import pyarrow as pa

        parts = _Parts.of(records, self._min_latency_ns)
        fields = parts.fields
        end = fields["end_ns"].view(np.int64) - parts.after
        in_queue, in_throttle = parts.part == _QUEUE, parts.part == _THROTTLE
        kind = np.where(in_queue, fields["kind"], _KIND_OF_PART[parts.part])
        cgroup = fields["cgroup"].view(np.int64)
        # The culprit of a throttled wait is the quota of the task's own cgroup.
        culprit_cgroup = np.where(in_throttle, cgroup, fields["culprit_cgroup"].view(np.int64))
        culprit_ns = np.where(in_throttle, parts.wait, fields["culprit_ns"].view(np.int64))
        wake = fields["wake_ns"].view(np.int64)
        idle = fields["culprit_tid"] == 0
        unknown = ~in_queue | (fields["culprit_known"] == 0)
        no_culprit = Nulls(unknown)
        no_culprit_cgroup = Nulls((unknown | idle) & ~in_throttle)
        no_waker = Nulls(
            (fields["kind"] != Kind.RUNQ_WAKEUP) | (fields["waker_context"] == WakerContext.NONE)
        )
        flags = fields["flags"]
        flags[~in_queue] &= np.uint8(0xFF & ~(Flag.CULPRIT_PARTIAL | Flag.MIGRATED_QUEUED))

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
            "wait_ns": numbers(parts.wait),
            "kind": KINDS.column(kind),
            "pid": ids("pid"),
            "tid": ids("tid"),
            "comm": comms("tid"),
            "cpu": plain("cpu"),
            "prev_cpu": plain("prev_cpu"),
            "node": numbers(self._node_of_cpu[fields["cpu"]]),
            "migrated": pa.array(fields["cpu"] != fields["prev_cpu"]),
            "wake_ns": numbers(wake, Nulls(~in_queue | (wake == 0))),
            "cgroup_id": numbers(cgroup),
            "cgroup": paths(cgroup),
            "policy": POLICY_NAMES.column(fields["policy"]),
            "prio": plain("prio"),
            "nice": plain("nice"),
            "state": _STATES.column(_known_state(fields["state"])),
            "waker_pid": ids("waker_pid", no_waker),
            "waker_tid": ids("waker_tid", no_waker),
            "waker_comm": comms("waker_tid", no_waker),
            "waker_context": _CONTEXTS.column(fields["waker_context"], no_waker),
            "culprit_pid": ids("culprit_pid", no_culprit),
            "culprit_tid": ids("culprit_tid", no_culprit),
            "culprit_comm": comms("culprit_tid", no_culprit),
            "culprit_cgroup_id": numbers(culprit_cgroup, no_culprit_cgroup),
            "culprit_cgroup": paths(culprit_cgroup, no_culprit_cgroup),
            "culprit_ns": numbers(culprit_ns, Nulls(unknown & ~in_throttle)),
            "culprit_others": plain("culprit_others", no_culprit),
            "flags": numbers(flags),
        }
        for name in ("stack_kernel", "stack_user", "waker_stack_kernel", "waker_stack_user"):
            if name in fields:
                columns[name] = nonzero(fields[name].view(np.int64))
        if "tag" in fields:
            columns |= tags.columns(fields["tag"])
            columns["reason"] = tags.reasons(fields["tag"], parts.part == _BLOCK)
            columns["task"] = self._asyncio_tasks.column(fields["tag"])
        return pa.table(columns)

    def missed(self, records: NDArray[Any]) -> pa.Table:
        """Rows of the missed table: waits that were not seen whole, with their bounds."""
        import pyarrow as pa

        records = records[records["kind"] >= _MISSED_FROM]
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


@dataclass(frozen=True)
class _Parts:
    """Records taken apart into rows, one for each part that is a wait.

    Attributes:
        fields: Every field of the records, with a value a row.
        part: _QUEUE, _THROTTLE or _BLOCK of each row.
        wait: How long each part was.
        after: How long after the end of each part its record ended.
    """

    fields: dict[str, NDArray[Any]]
    part: NDArray[np.int8]
    wait: NDArray[np.int64]
    after: NDArray[np.int64]

    @classmethod
    def of(cls, records: NDArray[Any], least_ns: int) -> _Parts:
        """Cuts records into parts; those under `least_ns`, and what was missed, are left out."""
        pieces = [records[at : at + _PIECE] for at in range(0, max(len(records), 1), _PIECE)]
        cuts = [_Cut.of(piece, least_ns) for piece in pieces]
        ends = np.cumsum([len(cut.wait) for cut in cuts])
        fields = {n: np.empty(ends[-1], records.dtype[n]) for n in records.dtype.names or ()}
        for piece, cut, end in zip(pieces, cuts, ends.tolist(), strict=True):
            for name, column in fields.items():
                cut.spread(piece[name], column[end - len(cut.wait) : end])
        joined = (np.concatenate([getattr(c, n) for c in cuts]) for n in ("part", "wait", "after"))
        return cls(fields, *joined)


@dataclass(frozen=True)
class _Cut:
    """How one piece of the records becomes rows: parts in queues, then throttled, then blocked.

    Attributes:
        rows: Indices of the records behind each of the three; a slice where it is all of them.
        part, wait, after: As in _Parts.
    """

    rows: tuple[slice | NDArray[np.intp], ...]
    part: NDArray[np.int8]
    wait: NDArray[np.int64]
    after: NDArray[np.int64]

    @classmethod
    def of(cls, piece: NDArray[Any], least_ns: int) -> _Cut:
        runq, throttled, blocked = (
            piece[name].astype(np.int64) for name in ("runq_ns", "throttled_ns", "blocked_ns")
        )
        whole = piece["kind"] < _MISSED_FROM
        queued = runq - throttled
        rows = tuple(
            slice(None) if chosen.all() else np.flatnonzero(chosen)
            for chosen in (
                whole & ((queued > 0) | (throttled == 0)) & (queued >= least_ns),
                whole & (throttled > 0) & (throttled >= least_ns),
                whole & (blocked > 0) & (blocked >= least_ns),
            )
        )
        waits = [queued[rows[_QUEUE]], throttled[rows[_THROTTLE]], blocked[rows[_BLOCK]]]
        part = np.repeat(np.arange(3, dtype=np.int8), [len(w) for w in waits])
        none = np.zeros(len(waits[_QUEUE]), np.int64)
        after = np.concatenate([none, queued[rows[_THROTTLE]], runq[rows[_BLOCK]]])
        return cls(rows, part, np.concatenate(waits), after)

    def spread(self, values: NDArray[Any], into: NDArray[Any]) -> None:
        """From one value a record to one a row."""
        if values.dtype.names:
            # As plain bytes: structured values are copied one field at a time.
            values, into = (a.view(f"V{values.dtype.itemsize}") for a in (values, into))
        at = 0
        for rows in self.rows:
            if isinstance(rows, slice):
                part = into[at : at + len(values)]
                part[:] = values
                values = part
            else:
                values = np.ascontiguousarray(values)
                part = into[at : at + len(rows)]
                # In this mode it needs no second buffer; the indices are within.
                values.take(rows, out=part, mode="clip")
            at += len(part)


def _known_state(state: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """States reduced to those with a letter: the lowest known bit decides."""
    known = _HAS_LETTER[np.minimum(state, len(_HAS_LETTER) - 1)]
    if known.all():
        return state
    # Bits beyond the letters (TASK_WAKEKILL, TASK_FREEZABLE ...) qualify a basic state.
    basic = state & np.uint16(0x7F)
    lowest = basic & (~basic + np.uint16(1))
    return np.where(known, state, lowest).astype(np.uint16)
