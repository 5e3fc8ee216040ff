"""Real-time threads that are held back by their own bandwidth, not by who runs meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sltrace.analysis.finding import LONG_NS, Finding, Name, name_of
from sltrace.analysis.foremost import figures, foremost, waits_by
from sltrace.analysis.meta import recorded_sql
from sltrace.durations import format_duration
from sltrace.plural import counted

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

BANDWIDTH = 0.01
"""Share of the recording that a cgroup's real-time threads were held back."""
OFTEN = 3
"""So often: a thread that is made real-time while it waits ends one wait like these."""

_NORMAL_PRIO = 100
"""The kernel's MAX_RT_PRIO: below it are real-time threads, and those that have inherited it."""

_REAL_TIME = ("FIFO", "RR", "DEADLINE")

HELD_BACK = f"""(
  kind = 'runq_preempt' AND policy IN {_REAL_TIME!r} AND culprit_tid IS NOT NULL
  AND (culprit_tid = 0 OR culprit_tid IN (
    SELECT tid FROM waits WHERE prio IS NOT NULL GROUP BY tid HAVING min(prio) >= {_NORMAL_PRIO}))
)"""
"""SQL for waits of real-time threads that lost a CPU to normal ones, or to nobody. The scheduler
never prefers those: it had taken the thread off the queue until its bandwidth is filled up. One
that is woken may have to wait for the end of somebody's system call, and is left out."""


def bandwidth(trace: Trace) -> list[Finding]:
    """Real-time threads have used up what they may run."""
    rows = trace.sql(
        f"SELECT *, {recorded_sql(trace, 'pid')} AS wall "
        f"FROM ({waits_by('cgroup', f'waits WHERE wait_ns >= ? AND {HELD_BACK}')}) "
        "WHERE waited >= ? * wall AND n >= ? ORDER BY waited DESC",
        [LONG_NS, BANDWIDTH, OFTEN],
    ).to_pylist()
    return [
        Finding(
            name=Name.BANDWIDTH,
            lost=row["waited"] / row["wall"],
            sentence=f"real-time threads of {name_of(row['cgroup'])} were held back for "
            f"{format_duration(row['waited'])} within {format_duration(row['wall'])} "
            f"({foremost(row)}) while only normal threads ran or none, "
            f"{counted(row['n'], 'time')}, the longest {format_duration(row['longest'])}.",
            advice="Nobody is in their way: they ran for as long as real-time threads may. Let "
            "them run less, or raise what they may: cpu.rt_runtime_us of their cgroup, "
            "sched_rt_runtime_us in /proc/sys/kernel, or the runtime that a deadline thread asks "
            "for.",
            numbers=figures(row),
            values={
                "cgroup": (row["cgroup"],),
                "kind": ("runq_preempt",),
                "policy": _REAL_TIME,
            },
        )
        for row in rows
    ]
