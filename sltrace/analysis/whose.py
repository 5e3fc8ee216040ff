"""Who waited in a trace and because of whom, in the words of every view, as SQL over `waits`."""

from __future__ import annotations

from sltrace.model import RUNQ_KINDS, Kind

NOT_KNOWN = "not known"
IDLE = "idle CPU"
OTHERS = "other tasks"

_PROCESS = "'pid ' || coalesce(pid::VARCHAR, '?')"


def _lane(comm: str) -> str:
    # Two processes of one trace have goroutines of the same number, and tasks of the same name.
    return (
        f"CASE WHEN goid IS NOT NULL THEN 'goroutine ' || goid || ' of ' || {_PROCESS} "
        f"WHEN coalesce(task, '') <> '' THEN task || ' (asyncio) of ' || {_PROCESS} "
        f"ELSE coalesce({comm}, '') || ' (' || coalesce(tid::VARCHAR, '?') || ')' END"
    )


LANE_KEY = _lane("''")
"""What waited, to be told apart: the goroutine, else the asyncio task, else the thread."""

LANE = _lane("arg_max(comm, end_ns) OVER (PARTITION BY trace_id, tid)")
"""Its name; a thread's is the last that it had in the trace."""

BECAUSE = (
    f"CASE WHEN kind = '{Kind.THROTTLED.label}' "
    "THEN 'quota of ' || coalesce(culprit_cgroup, cgroup, 'unknown') "
    f"WHEN culprit_tid = 0 THEN '{IDLE} (wakeup latency)' "
    "WHEN culprit_tid IS NOT NULL THEN coalesce(culprit_comm, 'unknown') || ' ' || culprit_tid "
    "|| ' ran' "
    f"WHEN kind IN {RUNQ_KINDS!r} THEN '{NOT_KNOWN}' "
    "WHEN waker_goid IS NOT NULL THEN 'ended by goroutine ' || waker_goid "
    "WHEN waker_context IN ('softirq', 'hardirq') "
    "THEN 'ended by an interrupt (' || waker_context || ')' "
    "WHEN waker_tid IS NOT NULL "
    "THEN 'ended by ' || coalesce(waker_comm, 'unknown') || ' ' || waker_tid "
    f"ELSE '{NOT_KNOWN}' END"
)
"""Who had what was waited for, or who ended the wait."""
