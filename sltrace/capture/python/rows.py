"""From the Python probes' records to rows of waits, samples and counters."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sltrace.capture import tags
from sltrace.capture.columns import Nulls, named, nonzero
from sltrace.capture.python.probes import SAMPLE_HZ
from sltrace.capture.sources import Context
from sltrace.model import Kind
from sltrace.symbols.mappings import Mapping
from sltrace.trace.schema import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

CLASSES = {
    "python_switches": "info",
    "python_ns": "info",
    "python_stacks": "info",
    "python_stacks_capped": "discard",
    "python_stacks_cut": "partial",
    "python_stacks_failed": "partial",
    "python_stacks_lost": "partial",
    "python_waits_lost": "loss",
    "python_samples_lost": "partial",
    "python_native_lost": "partial",
    "python_names_lost": "discard",
    "python_threads_lost": "partial",
    "python_processes_lost": "partial",
}
"""Counter (enum python_counter in probes/python.h) to its class in the counters table."""

_KINDS = {Kind.STW: 0, Kind.GIL: 1, Kind.LOOP: 2}
_REASONS = ["gc", "busy period", "iteration"]


def waits(records: NDArray[Any], context: Context) -> pa.Table:
    """Rows of the waits table for `struct python_wait`s."""
    import pyarrow as pa

    end = records["end_ns"].astype(np.int64)
    kind = records["kind"]
    tid, culprit = records["tid"].astype(np.int32), records["culprit_tid"].astype(np.int32)
    cgroup = records["cgroup"].astype(np.int64)
    comms, names = context.tasks.comms_for(tid, end)
    culprits, culprit_names = context.tasks.comms_for(culprit, end)
    paths, path_names = context.groups.paths_for(cgroup)
    alone = records["culprit_ns"] == 0
    unknown = culprit == 0
    is_loop = kind == Kind.LOOP
    reason = np.where(is_loop, 1 + (records["exact"] != 0), 0).astype(np.int32)
    label = np.zeros(len(records), np.int32)
    for value, index in _KINDS.items():
        label[kind == value] = index
    stack = records["culprit_stack"].astype(np.int64)
    return pa.table(
        {
            "end_ns": pa.array(end),
            "wait_ns": pa.array(records["wait_ns"].astype(np.int64)),
            "kind": named(label, [k.label for k in _KINDS]),
            "pid": pa.array(records["pid"].astype(np.int32)),
            "tid": pa.array(tid),
            "comm": named(comms, names),
            "cpu": pa.array(records["cpu"]),
            "cgroup_id": pa.array(cgroup),
            "cgroup": named(paths, path_names),
            "culprit_pid": pa.array(records["pid"].astype(np.int32), mask=unknown),
            "culprit_tid": pa.array(culprit, mask=unknown),
            "culprit_comm": named(culprits, culprit_names, Nulls(unknown)),
            "culprit_cgroup_id": pa.array(cgroup, mask=unknown),
            "culprit_cgroup": named(paths, path_names, Nulls(unknown)),
            "culprit_ns": pa.array(records["culprit_ns"].astype(np.int64), mask=alone),
            "culprit_others": pa.array(records["culprit_others"], mask=alone),
            "culprit_stack": pa.array(stack, mask=stack == 0),
            "runq_ns": pa.array(records["runq_ns"].astype(np.int64)),
            "gil_ns": pa.array(records["gil_ns"].astype(np.int64), mask=kind == Kind.GIL),
            "reason": named(reason, _REASONS, Nulls(kind == Kind.GIL)),
            "flags": pa.array(np.zeros(len(records), np.uint8)),
            **tags.columns(records["tag"]),
            "task": context.asyncio_tasks.column(records["tag"]),
        }
    )


def mappings(found: Sequence[tuple[int, Mapping]]) -> pa.Table:
    """Rows of the mappings table for what is mapped in processes, as of now."""
    import pyarrow as pa

    now = time.monotonic_ns()
    columns = ("start", "end", "offset", "path")
    rows = [
        {"pid": pid, "build_id": "", "seen_ns": now, **{c: getattr(m, c) for c in columns}}
        for pid, m in found
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema("mappings"))


def samples(records: NDArray[Any], context: Context) -> pa.Table:
    """Rows of the samples table for `struct python_sample`s."""
    import pyarrow as pa

    n = len(records)
    return pa.table(
        {
            "ns": pa.array(records["ns"].astype(np.int64)),
            "source": named(np.zeros(n, np.int32), ["cpu"]),
            "pid": pa.array(records["pid"].astype(np.int32)),
            "tid": pa.array(records["tid"].astype(np.int32)),
            "weight_ns": pa.array(np.full(n, 1_000_000_000 // SAMPLE_HZ)),
            "count": pa.array(np.ones(n, np.int64)),
            "stack_user": nonzero(records["stack_user"].astype(np.int64)),
            "stack_kernel": nonzero(records["stack_kernel"].astype(np.int64)),
            **tags.identity(records["tag"]),
            "task": context.asyncio_tasks.column(records["tag"]),
        }
    )
