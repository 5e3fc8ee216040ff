"""Columns of every table in a trace: the one definition that writer, reader and docs follow.

A trace is a folder, `NAME.slt/`: `meta.json` and one folder of Parquet segments per table, so
`SELECT ... FROM 'NAME.slt/waits/*.parquet'` works in DuckDB (and the like in Polars and pandas)
without sltrace. All times are nanoseconds of CLOCK_MONOTONIC; `meta.json` maps them to wall clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "sltrace"
VERSION = (1, 0)
"""Major, minor. A reader takes any minor of its own major: minors only add columns and tables."""


@dataclass(frozen=True)
class Column:
    """One column: Arrow type by name (`dict` is a dictionary-encoded string) and its meaning."""

    name: str
    type: str
    doc: str


WAITS = (
    Column("end_ns", "int64", "when the wait ended"),
    Column("wait_ns", "int64", "how long it was"),
    Column(
        "kind",
        "dict",
        "what was waited for: runq_wakeup, runq_preempt, throttled, blocked, goroutine, stw, gil, "
        "loop, goroutine_blocked",
    ),
    Column("pid", "int32", "process (thread group) id"),
    Column("tid", "int32", "thread id"),
    Column("comm", "dict", "thread name when the wait ended"),
    Column("cpu", "uint16", "CPU the task got at the end"),
    Column("prev_cpu", "uint16", "CPU it last ran on; equal to cpu for a task's first run"),
    Column("node", "uint16", "NUMA node of cpu"),
    Column("migrated", "bool", "cpu differs from prev_cpu"),
    Column(
        "wake_ns",
        "int64",
        "wake latency: from the waker's call (sched_waking), or the switch-out if that is later, "
        "to running; null unless kind is runq_wakeup and the waking was seen",
    ),
    Column("cgroup_id", "int64", "kernfs id of the task's cgroup in the hierarchy meta.json names"),
    Column("cgroup", "dict", "its path; #ID where the path is unknown"),
    Column("policy", "dict", "scheduling policy: OTHER BATCH IDLE FIFO RR DEADLINE EXT"),
    Column("prio", "int16", "kernel priority: 0-98 real time, 100-139 normal, -1 deadline"),
    Column("nice", "int8", "nice value, -20 to 19"),
    Column(
        "state",
        "dict",
        "task state letter at switch-out: R S D T t X Z P I; R where preempted, D where frozen",
    ),
    Column("waker_pid", "int32", "process that ended the block; null where unknown"),
    Column("waker_tid", "int32", "thread that ended the block; null where unknown"),
    Column("waker_comm", "dict", "its name"),
    Column("waker_context", "dict", "task, softirq or hardirq: an interrupt only borrows the task"),
    Column(
        "culprit_pid", "int32", "process that ran most on that CPU meanwhile; 0 is the idle CPU"
    ),
    Column("culprit_tid", "int32", "its thread; 0 is the idle CPU; null where unknown"),
    Column("culprit_comm", "dict", "its name; `idle` for the idle CPU"),
    Column(
        "culprit_cgroup_id",
        "int64",
        "its cgroup; for kind throttled the one whose quota it was: the task's own or one above it",
    ),
    Column("culprit_cgroup", "dict", "its cgroup's path"),
    Column("culprit_ns", "int64", "how long it ran within the wait"),
    Column("culprit_others", "uint8", "how many other tasks ran within the wait, at least: 0 to 4"),
    Column("stack_kernel", "int64", "stack id of the waiting task's kernel stack; null if none"),
    Column("stack_user", "int64", "stack id of its user stack; null if none"),
    Column("waker_stack_kernel", "int64", "stack id of the waker's kernel stack; null if none"),
    Column("waker_stack_user", "int64", "stack id of the waker's user stack; null if none"),
    Column("stack_runtime", "int64", "stack id of the Go or Python stack; null if none"),
    Column("waker_stack_runtime", "int64", "stack id of the waker's Go or Python stack"),
    Column("culprit_stack", "int64", "stack id of what the culprit was doing; null if none"),
    Column("goid", "int64", "goroutine; null for other waits"),
    Column("waker_goid", "int64", "goroutine that ended the wait; null where unknown"),
    Column("held_p", "int32", "Go P that the thread held while it was off the CPU; null if none"),
    Column("queued", "uint16", "goroutines queued behind that P when the thread lost the CPU"),
    Column(
        "task", "dict", "asyncio task: its coroutine, `NAME (coroutine)` if it was given a name"
    ),
    Column("reason", "dict", "what for, in the runtime's words: chan receive, select, lock ..."),
    Column(
        "runq_ns",
        "int64",
        "of a wait of kind gil or loop, or of a Python collection, how long the thread was "
        "runnable and had no CPU",
    ),
    Column(
        "gil_ns",
        "int64",
        "of a wait of kind loop, or of a Python collection, how long the thread waited for the GIL",
    ),
    Column("sampled", "uint16", "one wait in this many became a row; null: all did"),
    Column("trace_id", "string", "OpenTelemetry trace id, 32 hex digits; null where unknown"),
    Column("span_id", "string", "OpenTelemetry span id, 16 hex digits; null where unknown"),
    Column(
        "id_source",
        "dict",
        "where trace_id is from: pprof_labels, otel_sdk, contextvars, thread_context, obi",
    ),
    Column(
        "flags",
        "uint8",
        "sum of: 1 began before the recording, 2 the task's first run, 4 moved to another CPU's "
        "queue while it waited, 8 the culprit's look back is too short, 16 yielded or rescheduled "
        "on return to user space, 32 the waker is unknown, 64 moved while it slept on a queue, "
        "128 the goroutine is locked to its thread",
    ),
)

MISSED = (
    Column("cpu", "uint16", "CPU on which an event went missing"),
    Column("pid", "int32", "process of the task whose wait was not seen whole"),
    Column("tid", "int32", "its thread"),
    Column("comm", "dict", "its name"),
    Column(
        "cause", "dict", "hole: a switch on this CPU was not seen; unstamped: no start was seen"
    ),
    Column("end_ns", "int64", "when the gap was noticed"),
    Column("low_ns", "int64", "the missed run-queue wait was at least this long"),
    Column("high_ns", "int64", "and at most this long"),
)

HISTOGRAMS = (
    Column("start_ns", "int64", "start of the interval"),
    Column("end_ns", "int64", "end of the interval"),
    Column("cgroup_id", "int64", "as in waits; -1 for cgroups beyond the probe's table"),
    Column("cgroup", "dict", "its path"),
    Column("policy", "dict", "as in waits"),
    Column("kind", "dict", "as in waits"),
    Column("bucket", "uint8", "index of the log-linear bucket (sltrace.buckets)"),
    Column("low_ns", "int64", "smallest wait of the bucket"),
    Column("count", "int64", "waits in it, exact"),
)

HISTOGRAM_SUMS = (
    Column("start_ns", "int64", "start of the interval"),
    Column("end_ns", "int64", "end of the interval"),
    Column("cgroup_id", "int64", "as in histograms"),
    Column("cgroup", "dict", "its path"),
    Column("policy", "dict", "as in waits"),
    Column("kind", "dict", "as in waits"),
    Column("count", "int64", "waits, exact"),
    Column("sum_ns", "int64", "their total, exact"),
)

COUNTERS = (
    Column("start_ns", "int64", "start of the interval"),
    Column("end_ns", "int64", "end of the interval"),
    Column("cpu", "uint16", "CPU"),
    Column("name", "dict", "what was counted; docs/measured.md and docs/python.md explain each"),
    Column(
        "class",
        "dict",
        "loss: a wait is missing; partial: a stack or a name is; discard: refused on purpose; info",
    ),
    Column("value", "int64", "how many in the interval"),
)

STACKS = (
    Column("stack_id", "int64", "id used in waits"),
    Column("space", "dict", "kernel, user, go or python"),
    Column("pid", "int32", "process whose address space the addresses are in; 0 for kernel"),
    Column(
        "program",
        "int64",
        "number of the program that they are of, as a process may become another by exec; null "
        "unless space is go",
    ),
    Column(
        "addresses",
        "list<uint64>",
        "return addresses, innermost first; of Python numbers of places in code, from 2^63 on",
    ),
)

MAPPINGS = (
    Column("pid", "int32", "process"),
    Column("start", "uint64", "first address"),
    Column("end", "uint64", "address after the last"),
    Column("offset", "uint64", "offset of start in the file"),
    Column("path", "string", "file, or [vdso] and the like"),
    Column("build_id", "string", "GNU build id, hex; empty where there is none"),
    Column("seen_ns", "int64", "when it was seen; each time that it was new"),
)

FRAMES = (
    Column("space", "dict", "as in stacks"),
    Column("pid", "int32", "process; 0 for kernel"),
    Column("program", "int64", "as in stacks"),
    Column("address", "uint64", "address as in stacks"),
    Column("name", "string", "function; module+0xoffset where no symbol covers it"),
    Column("module", "string", "file name, kernel module, [kernel] or [vdso]; empty if unknown"),
    Column("build_id", "string", "GNU build id of the module, hex"),
    Column("language", "dict", "kernel, native, jit, go or python"),
    Column("file", "string", "source file; null if unknown"),
    Column("line", "int32", "line in it; null if unknown"),
)

TASKS = (
    Column("pid", "int32", "process id"),
    Column("tid", "int32", "thread id"),
    Column("comm", "string", "thread name from from_ns on"),
    Column("from_ns", "int64", "when this name began to hold; 0 for before the recording"),
    Column("until_ns", "int64", "when the thread exited; null if it outlived the recording"),
    Column("ppid", "int32", "parent process; null where unknown"),
    Column("ns_pid", "int32", "process id in its own pid namespace; null where unknown"),
    Column("cmdline", "string", "command line of the process; empty for kernel threads"),
)

CGROUPS = (
    Column("cgroup_id", "int64", "kernfs id"),
    Column("path", "string", "path from the hierarchy's root"),
    Column("container_id", "string", "container id, 64 hex digits as a rule; empty if none"),
    Column("runtime", "string", "docker, containerd, cri-o, podman, ecs ...; empty if unknown"),
    Column("pod_uid", "string", "Kubernetes pod uid; empty if none"),
    Column("unit", "string", "innermost systemd unit; empty if none"),
    Column("created_ns", "int64", "when it was created; null if before the recording"),
    Column("removed_ns", "int64", "when it was removed; null if it outlived the recording"),
    Column("quota_us", "int64", "CPU quota per period; null if none or unknown"),
    Column("period_us", "int64", "CPU period; null if unknown"),
    Column(
        "seen_ns",
        "int64",
        "when it was so: a cgroup that changed, as its quota, has several rows; the latest holds",
    ),
)

TARGETS = (
    Column("pid", "int32", "process whose runtime was looked into, or could not be"),
    Column("runtime", "dict", "go or python"),
    Column("version", "string", "of the runtime; empty if unknown"),
    Column("exe", "string", "its executable"),
    Column("build_id", "string", "GNU build id of the runtime's file, hex; empty if none"),
    Column("level", "int16", "how much is recorded of it; null for nothing"),
    Column("why", "string", "why not more, in a sentence; empty if all that was asked for is"),
    Column(
        "from_ns",
        "int64",
        "since when it was looked into; of who was not, since when it was there",
    ),
    Column("until_ns", "int64", "until when; null if it outlived the recording"),
)

SAMPLES = (
    Column("ns", "int64", "when it was taken"),
    Column("source", "dict", "cpu: on the CPU, by a timer; wall: whatever it was doing"),
    Column("pid", "int32", "process"),
    Column("tid", "int32", "thread; null for a goroutine that is on none"),
    Column("goid", "int64", "goroutine; null for other samples"),
    Column("task", "dict", "as in waits"),
    Column("state", "dict", "for wall samples what it was doing: running, runnable, waiting ..."),
    Column("reason", "dict", "as in waits"),
    Column("weight_ns", "int64", "time it stands for"),
    Column("count", "int64", "how many goroutines or threads it stands for"),
    Column("stack_kernel", "int64", "as in waits"),
    Column("stack_user", "int64", "as in waits"),
    Column("stack_runtime", "int64", "as in waits"),
    Column("trace_id", "string", "as in waits"),
    Column("span_id", "string", "as in waits"),
    Column("id_source", "dict", "as in waits"),
)

GAUGES = (
    Column("ns", "int64", "when it was read"),
    Column("pid", "int32", "process"),
    Column("name", "dict", "what was read; docs/go.md explains each"),
    Column("item", "int32", "of which P or thread; null for the whole process"),
    Column("value", "double", "its value"),
)

RUNTIME_HISTOGRAMS = (
    Column("start_ns", "int64", "start of the interval"),
    Column("end_ns", "int64", "end of the interval"),
    Column("pid", "int32", "process"),
    Column("name", "dict", "the runtime's own name, as /sched/latencies:seconds"),
    Column("low_ns", "int64", "smallest value of the bucket"),
    Column("high_ns", "int64", "smallest value above it; null for no end"),
    Column("count", "int64", "values in it, as the runtime counted"),
)

PROFILES = (
    Column("ns", "int64", "when it was received or read"),
    Column("start_ns", "int64", "when the profile began; null if it does not say"),
    Column("end_ns", "int64", "when it ended; null if it does not say"),
    Column("source", "dict", "push or ingest: received, and over which request; file"),
    Column("app", "dict", "service that it is of, as its client names it; the file's name"),
    Column("labels", "string", "labels of the service, a JSON object"),
    Column("measure", "dict", "what its time is, as the profile calls it: cpu, wall ..."),
    Column("samples", "int64", "samples in it"),
    Column("size", "int64", "bytes of profile"),
    Column("profile", "binary", "a pprof message (profile.proto), not packed"),
)

TABLES: dict[str, tuple[Column, ...]] = {
    "waits": WAITS,
    "missed": MISSED,
    "histograms": HISTOGRAMS,
    "histogram_sums": HISTOGRAM_SUMS,
    "counters": COUNTERS,
    "stacks": STACKS,
    "mappings": MAPPINGS,
    "frames": FRAMES,
    "tasks": TASKS,
    "cgroups": CGROUPS,
    "targets": TARGETS,
    "samples": SAMPLES,
    "gauges": GAUGES,
    "runtime_histograms": RUNTIME_HISTOGRAMS,
    "profiles": PROFILES,
}

FILLED_BY_ALL = frozenset(
    {
        *("end_ns", "wait_ns", "kind", "pid", "tid"),
        *("comm", "cpu", "cgroup_id", "cgroup", "flags"),
    }
)
"""Columns of waits that every source fills; said to be never null, one costs 2 ns a value to write,
not 5 (measured)."""

FILLED_BY_SCHEDULER = FILLED_BY_ALL | {
    *("prev_cpu", "node", "migrated", "policy", "prio", "nice", "state"),
}
"""Those that the scheduler's probes fill; 21 of 220 ns a wait (measured)."""


@cache
def arrow_schema(table: str, *, filled: frozenset[str] = frozenset()) -> pa.Schema:
    """Arrow schema of a table; `dict` columns are dictionary<int32, string>.

    Args:
        table: Which.
        filled: Columns that are never null.
    """
    import pyarrow as pa

    types = {
        "dict": pa.dictionary(pa.int32(), pa.string()),
        "bool": pa.bool_(),
        "list<uint64>": pa.list_(pa.uint64()),
    }
    return pa.schema(
        [
            pa.field(c.name, types.get(c.type) or pa.type_for_alias(c.type), c.name not in filled)
            for c in TABLES[table]
        ]
    )
