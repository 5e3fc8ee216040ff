"""Threads that could run and do not: contention, quota, and where they are made to run.

Each function returns what it found, most time lost first, and nothing where nothing is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sltrace.analysis.bandwidth import HELD_BACK
from sltrace.analysis.finding import LONG_NS, Finding, Name, cpu_times, name_of
from sltrace.analysis.foremost import figures, foremost, waits_by
from sltrace.analysis.meta import filters, hosts, min_latency_ns, node_of_cpu, recorded_sql
from sltrace.analysis.quotas import LAST_OF_GROUP, WITH_QUOTAS, at_last, cpus
from sltrace.durations import format_duration
from sltrace.model import RUNQ_KINDS
from sltrace.plural import counted

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

CONTENTION = 0.05
"""Share of the recording that a cgroup's threads spent in long run-queue waits."""
QUOTA = 0.01
"""Share of the recording that a cgroup's threads were throttled."""
ONE_CPU = 0.8
"""Share of the long run-queue time that is on one CPU."""
IDLE_CPU = 0.3
"""Share of the recording that another CPU was idle meanwhile."""
MOVES_A_SECOND = 300
MOVED = 0.3
"""Switch-ins of a process on another CPU than before: a rate, and their share."""
NODE_MOVES_A_SECOND = 100
MOVED_NODE = 0.1
"""The same for another NUMA node, which costs more: memory stays where it was."""

_SECOND = 1_000_000_000
_ONE_PERCENT = 0.01
"""Share of the time from which on a culprit is named."""
_RUNQ = f"kind IN {RUNQ_KINDS!r}"
_LONG = (
    f"waits WHERE {_RUNQ} AND wait_ns >= ? AND culprit_tid IS DISTINCT FROM 0 AND NOT {HELD_BACK}"
)
"""Long run-queue waits behind tasks that ran."""


def contention(trace: Trace) -> list[Finding]:
    """Threads of a cgroup wait long for a CPU while others run."""
    rows = trace.sql(
        f"""
        WITH long AS (
          SELECT * FROM {_LONG}
        ), victims AS (
          SELECT *, {recorded_sql(trace, "pid")} AS wall
          FROM ({waits_by("cgroup", "long")}) WHERE waited >= ? * wall
        ), culprits AS (
          SELECT cgroup, culprit_comm, culprit_cgroup,
            sum(least(culprit_ns, wait_ns))::BIGINT AS held
          FROM long WHERE culprit_tid IS NOT NULL GROUP BY ALL
        )
        SELECT v.*, c.culprit_comm, c.culprit_cgroup, coalesce(c.held, 0) AS held
        FROM victims v LEFT JOIN culprits c ON c.cgroup IS NOT DISTINCT FROM v.cgroup
        QUALIFY row_number() OVER (PARTITION BY v.cgroup ORDER BY held DESC, culprit_comm) = 1
        ORDER BY waited DESC
        """,
        [LONG_NS, CONTENTION],
    ).to_pylist()
    # Of a merged trace paths begin with the machine's name.
    roots = frozenset(("/", *(f"{host}:/" for host in hosts(trace).values())))
    return [_contention(row, roots) for row in rows]


def _contention(row: Mapping[str, Any], roots: frozenset[str]) -> Finding:
    share = row["held"] / row["waited"]
    stands_out = share >= _ONE_PERCENT
    where = name_of(row["culprit_cgroup"])
    if row["culprit_cgroup"] is None:
        where = "an unknown cgroup"
    elif row["culprit_cgroup"] == row["cgroup"]:
        where = "the same cgroup"
    sentence = (
        f"threads of {name_of(row['cgroup'])} waited {format_duration(row['waited'])} "
        f"for a CPU within {format_duration(row['wall'])} ({foremost(row)}), in "
        f"{counted(row['n'], 'wait')} of {format_duration(LONG_NS)} or more, the longest "
        f"{format_duration(row['longest'])}"
    )
    if stands_out:
        sentence += f"; {share:.0%} of that time `{name_of(row['culprit_comm'])}` of {where} ran"
    return Finding(
        name=Name.CONTENTION,
        lost=row["waited"] / row["wall"],
        sentence=f"{sentence}.",
        advice=_way_out(row["cgroup"], row["culprit_cgroup"], name_of(row["culprit_comm"]), roots)
        if stands_out
        else "Nobody stands out: `sltrace blame TRACE --by comm` has all who ran meanwhile.",
        numbers=figures(row) | {"culprit_ns": row["held"]},
        values={"cgroup": (row["cgroup"],), "kind": RUNQ_KINDS},
    )


def _way_out(victim: str | None, culprit: str | None, comm: str, roots: frozenset[str]) -> str:
    """What gets a cgroup its CPU, by whose threads ran; the root has no share to be changed."""
    waiting, other = name_of(victim), name_of(culprit)
    if victim == culprit and victim in roots:
        return (
            "There are more runnable threads than CPUs: run fewer, or put those that matter into a "
            "cgroup of their own with a larger share (cpu.weight)."
        )
    if victim == culprit:
        return (
            f"{waiting} has more runnable threads than it gets CPUs: run fewer, or give it more "
            "CPUs (cpuset, cpu.weight)."
        )
    if culprit in roots:
        share = f"Put `{comm}` into a cgroup with a smaller share than {waiting} has (cpu.weight)"
    elif victim in roots:
        share = f"Give {other} a smaller share (cpu.weight, CPU requests)"
    else:
        share = f"Give {waiting} a larger share than {other} (cpu.weight, CPU requests)"
    return f"{share}, keep `{comm}` off those CPUs (cpuset), or lower its priority."


def quota(trace: Trace) -> list[Finding]:
    """A cgroup's CPU quota is used up while its threads could run."""
    rows = trace.sql(
        "SELECT cgroup, coalesce(culprit_cgroup, cgroup) AS whose, "
        "sum(wait_ns)::BIGINT AS waited, count(*) AS n, max(wait_ns) AS longest, "
        f"{LAST_OF_GROUP}, {recorded_sql(trace, 'min(pid)')} AS wall "
        f"FROM waits {WITH_QUOTAS} WHERE kind = 'throttled' GROUP BY cgroup, whose "
        "HAVING waited >= ? * wall ORDER BY waited DESC",
        [QUOTA],
    ).to_pylist()
    found = []
    for row in rows:
        held = row["quota"]
        whose = "Its quota" if row["whose"] == row["cgroup"] else f"That of {name_of(row['whose'])}"
        limit = (
            f" {whose} was {at_last(row['quotas'])}{cpus(**held):.2f} CPUs "
            f"({held['quota_us'] / 1000:g} ms in {held['period_us'] / 1000:g} ms)."
            if held
            else " It has no quota of its own: it is that of a cgroup above it."
        )
        found.append(
            Finding(
                name=Name.QUOTA,
                lost=row["waited"] / row["wall"],
                sentence=f"threads of {name_of(row['cgroup'])} were held back for "
                f"{format_duration(row['waited'])} within {format_duration(row['wall'])} because "
                f"the CPU quota was used up, {counted(row['n'], 'time')}, the longest "
                f"{format_duration(row['longest'])}.{limit}",
                advice="Nobody is in its way: raise or remove the quota (cpu.max, CPU limit), or "
                "run fewer threads, so that a period's quota is not used up at its beginning.",
                numbers=figures(row),
                values={"cgroup": (row["cgroup"],), "kind": ("throttled",)},
            )
        )
    return found


def one_cpu(trace: Trace, wall_ns: int) -> list[Finding]:
    """Threads wait on one CPU while another is idle.

    Where only some CPUs were recorded, what waited on others is not known.
    """
    if "cpus" in filters(trace):
        return []
    rows = trace.sql(
        waits_by("cpu", _LONG) + " ORDER BY waited DESC",
        [LONG_NS],
    ).to_pylist()
    whole = sum(row["waited"] for row in rows)
    times = cpu_times(trace)
    idle = {
        cpu: (t.get("idle", 0) + t.get("iowait", 0)) / wall_ns
        for cpu, t in times.items()
        if rows and cpu != str(rows[0]["cpu"])
    }
    spare = [cpu for cpu in idle if idle[cpu] >= IDLE_CPU]
    if whole < CONTENTION * wall_ns or rows[0]["waited"] < ONE_CPU * whole or not spare:
        return []
    worst, free = rows[0], max(spare, key=idle.__getitem__)
    return [
        Finding(
            name=Name.PLACEMENT,
            lost=worst["waited"] / wall_ns,
            sentence=f"{worst['waited'] / whole:.0%} of the time spent in long waits "
            f"for a CPU ({format_duration(worst['waited'])}, {foremost(worst)}) "
            f"was on CPU {worst['cpu']}, while CPU {free} was idle for {idle[free]:.0%} of the "
            "recording" + (f", and {len(spare) - 1:,} more like it." if len(spare) > 1 else "."),
            advice="The threads may not go there: look at their affinity (taskset -p), cpuset, "
            "and at interrupts bound to that CPU (/proc/interrupts).",
            numbers={
                "waited_ns": worst["waited"],
                "share": worst["waited"] / whole,
                "cpu": worst["cpu"],
                "idle_share": idle[free],
            },
            values={"cpu": (worst["cpu"],), "kind": RUNQ_KINDS},
        )
    ]


def moves(trace: Trace) -> list[Finding]:
    """A process moves between CPUs, or NUMA nodes, at most of its switches."""
    if min_latency_ns(trace):
        # Only the slow switch-ins were kept: no share of all could be told.
        return []
    rows = trace.sql(
        "SELECT pid, mode(comm) AS comm, count(*) AS n, "
        "count(*) FILTER (WHERE migrated) AS moved, "
        f"count(*) FILTER (WHERE migrated AND node <> {_node_before(trace)}) AS crossed, "
        f"{recorded_sql(trace, 'pid')} AS wall, "
        "crossed >= ? * wall AND crossed >= n * ? AS far, "
        "sum(wait_ns)::BIGINT AS waited "
        f"FROM waits WHERE {_RUNQ} GROUP BY pid "
        "HAVING far OR (moved >= ? * wall AND moved >= n * ?) "
        "ORDER BY greatest(moved, crossed) DESC, pid",
        [
            *(NODE_MOVES_A_SECOND / _SECOND, MOVED_NODE),
            *(MOVES_A_SECOND / _SECOND, MOVED),
        ],
    ).to_pylist()
    return [_moves(row) for row in rows]


def _moves(row: Mapping[str, Any]) -> Finding:
    far = row["far"]
    count = row["crossed"] if far else row["moved"]
    where = "on another NUMA node" if far else "on another CPU"
    return Finding(
        name=Name.PLACEMENT if far else Name.MIGRATION,
        # How much a move costs is in nobody's clock: the time waited around them is a bound.
        lost=row["waited"] / row["wall"],
        sentence=f"process {row['pid']} "
        f"(`{name_of(row['comm'])}`) got its CPU {where} than before {count:,} times of "
        f"{row['n']:,}, {count * _SECOND / row['wall']:,.0f} a second.",
        advice="Its memory is then remote: bind it to a node (numactl, cpuset.mems and .cpus)."
        if far
        else "Its caches are then cold: give it CPUs of its own (cpuset), and look for what "
        "changes its affinity or wakes it from elsewhere.",
        numbers={"moves": count, "switches": row["n"], "waited_ns": row["waited"]},
        values={"pid": (row["pid"],), "kind": RUNQ_KINDS},
    )


def _node_before(trace: Trace) -> str:
    """SQL for the NUMA node of `prev_cpu`; `node` itself where the trace does not say."""
    cases = " ".join(f"WHEN {cpu} THEN {node}" for cpu, node in node_of_cpu(trace).items())
    return f"(CASE prev_cpu {cases} ELSE node END)" if cases else "node"
