"""Time that is lost although nobody is in the way: steal, slow wakeups, devices.

Each function returns what it found, most time lost first, and nothing where nothing is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sltrace.analysis.finding import LONG_NS, Finding, Name, cpu_times, name_of
from sltrace.analysis.foremost import figures, foremost, waits_by
from sltrace.analysis.meta import min_latency_ns, recorded_sql
from sltrace.durations import format_duration
from sltrace.model import PID_SPACE

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

STEAL = 0.01
"""Share of the CPUs' time that the hypervisor gave to others."""
WAKEUP_NS = 200_000
"""Nine of ten wakeups on an idle CPU take less, unless something is wrong."""
FEWEST_WAKEUPS = 100
IO = 0.1
"""Share of the recording that a cgroup's threads were blocked in long I/O waits."""
_NO_DEVICE = "^(migration/|rcu_)"
"""Kernel threads that end the waits of who moves a thread to other CPUs, or frees memory late."""


def steal(trace: Trace, wall_ns: int) -> list[Finding]:
    """The hypervisor runs others on this machine's CPUs."""
    times = cpu_times(trace)
    stolen = sum(t.get("steal", 0) for t in times.values())
    whole = wall_ns * len(times)
    if not times or stolen < STEAL * whole:
        return []
    worst = max(times, key=lambda cpu: times[cpu].get("steal", 0))
    return [
        Finding(
            name=Name.STEAL,
            lost=stolen / wall_ns,
            sentence=f"the hypervisor took {format_duration(stolen)} of this machine's "
            f"CPUs within {format_duration(wall_ns)}, {stolen / whole:.1%} of their time; most on "
            f"CPU {worst}, {times[worst].get('steal', 0) / wall_ns:.1%}.",
            advice="The host is overcommitted or the instance is out of CPU credits: another "
            "instance type or host. Run times and waits in this trace contain the stolen time.",
            numbers={"stolen_ns": stolen, "share": stolen / whole},
            values={},
        )
    ]


def wakeup(trace: Trace, wall_ns: int) -> list[Finding]:
    """Wakeups on idle CPUs are slow."""
    if min_latency_ns(trace):
        return []
    row = trace.sql(
        "SELECT count(*) AS n, sum(wait_ns)::BIGINT AS waited, "
        "quantile_disc(wait_ns, 0.5) AS half, "
        "quantile_disc(wait_ns, 0.9) AS most, max(wait_ns) AS longest FROM waits "
        "WHERE kind = 'runq_wakeup' AND culprit_tid = 0 AND culprit_ns * 2 >= wait_ns",
    ).to_pylist()[0]
    if row["n"] < FEWEST_WAKEUPS or row["most"] < WAKEUP_NS:
        return []
    return [
        Finding(
            name=Name.WAKEUP,
            lost=row["waited"] / wall_ns,
            sentence=f"on idle CPUs, one wakeup in ten of {row['n']:,} took "
            f"{format_duration(row['most'])} or more, half of them {format_duration(row['half'])}, "
            f"the longest {format_duration(row['longest'])}. Nobody ran meanwhile.",
            advice="The CPUs sleep too deeply: look at idle states (cpupower idle-info), PM QoS "
            "(/dev/cpu_dma_latency) or a latency profile (tuned); in a virtual machine at the "
            "host's load and at halt polling.",
            numbers={
                "wakeups": row["n"],
                "p50_ns": row["half"],
                "p90_ns": row["most"],
                "longest_ns": row["longest"],
            },
            values={"kind": ("runq_wakeup",)},
        )
    ]


def blocked_io(trace: Trace) -> list[Finding]:
    """Threads of a cgroup are blocked for long, and a device or the kernel ends it."""
    rows = trace.sql(
        f"""
        WITH kernel AS (
          SELECT DISTINCT pid FROM tasks WHERE ppid % {PID_SPACE} = 2 OR pid % {PID_SPACE} = 2
        ), io AS (
          SELECT * FROM waits WHERE kind = 'blocked' AND state = 'D' AND wait_ns >= ?
            AND pid NOT IN (FROM kernel)
            AND (waker_context IN ('softirq', 'hardirq') OR (waker_pid IN (FROM kernel)
              AND NOT coalesce(regexp_matches(waker_comm, ?), false)))
        ), wakers AS (
          SELECT cgroup, mode(CASE WHEN waker_context <> 'task' THEN NULL
            ELSE waker_comm END) AS waker FROM io GROUP BY cgroup
        )
        SELECT t.*, {recorded_sql(trace, "pid")} AS wall, waker FROM ({waits_by("cgroup", "io")}) t
        LEFT JOIN wakers w ON w.cgroup IS NOT DISTINCT FROM t.cgroup
        WHERE waited >= ? * wall ORDER BY waited DESC
        """,
        [LONG_NS, _NO_DEVICE, IO],
    ).to_pylist()
    return [
        Finding(
            name=Name.IO,
            lost=row["waited"] / row["wall"],
            sentence=f"threads of {name_of(row['cgroup'])} were blocked for "
            f"{format_duration(row['waited'])} within {format_duration(row['wall'])} "
            f"({foremost(row)}) in waits that a device ended, or the kernel for it"
            + (f" (`{name_of(row['waker'])}`)" if row["waker"] else "")
            + f": {row['n']:,} of {format_duration(LONG_NS)} or more, the longest "
            f"{format_duration(row['longest'])}.",
            advice="Look at the device (iostat -x) and at what is asked of it: record with "
            "--stacks kernel, then `sltrace report`, or export with --only state=D.",
            numbers=figures(row),
            values={"cgroup": (row["cgroup"],), "kind": ("blocked",), "state": ("D",)},
        )
        for row in rows
    ]
