"""Time lost as one number over kinds: of each wait what no other row of its thread has too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sltrace.durations import format_duration
from sltrace.model import LOST_KINDS, Kind

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace


def lost_sql() -> str:
    """Sum of the time lost in a group of waits, in ns; NULL where there is none."""
    own = f"greatest(coalesce(wait_ns, 0) - {_in_runq_too()}, 0)"
    return f"sum({own}) FILTER (WHERE kind IN {LOST_KINDS!r})::BIGINT"


def in_two_kinds(trace: Trace) -> str:
    """What a sum over kinds has twice, as a sentence; empty where that is nothing."""
    (row,) = trace.sql(f"SELECT sum({_in_runq_too()})::BIGINT AS ns FROM waits").to_pylist()
    if not row["ns"]:
        return ""
    return (
        f"of waits for the GIL {format_duration(row['ns'])} are run-queue latency as well, which "
        "the sum of both kinds has twice"
    )


def _in_runq_too() -> str:
    """Of a wait for the GIL the part in which its thread was runnable and had no CPU, in ns.

    That part is a row of run-queue latency as well. SQL over the columns of waits, 0 of other
    kinds.
    """
    part = "least(coalesce(runq_ns, 0), coalesce(wait_ns, 0))"
    return f"CASE WHEN kind = '{Kind.GIL.label}' THEN greatest({part}, 0) ELSE 0 END"
