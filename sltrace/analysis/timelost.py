"""Time lost as one number over kinds: of each wait what no other row of its thread has too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sltrace.analysis.meta import min_latency_ns
from sltrace.durations import format_duration
from sltrace.model import LOST_KINDS, Kind

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace


_OF_OTHERS = (Kind.GIL.label, Kind.STW.label)
"""Waits for the GIL and Python's collections: within them their thread also waits for a CPU, and in
a collection that calls Python for the GIL, which are rows of their own."""


def lost_sql(trace: Trace) -> str:
    """Sum of the time lost in a group of waits, in ns; NULL where there is none."""
    own = f"greatest(coalesce(wait_ns, 0) - {_in_others_too(trace)}, 0)"
    return f"sum({own}) FILTER (WHERE kind IN {LOST_KINDS!r})::BIGINT"


def in_two_kinds(trace: Trace) -> str:
    """What a sum over kinds has twice, as a sentence; empty where that is nothing."""
    (row,) = trace.sql(f"SELECT sum({_in_others_too(trace)})::BIGINT AS ns FROM waits").to_pylist()
    if not row["ns"]:
        return ""
    return (
        f"of waits for the GIL and of collections {format_duration(row['ns'])} are run-queue "
        "latency or a wait for the GIL as well, which a sum over kinds has twice"
    )


def _in_others_too(trace: Trace) -> str:
    """Of a wait the part that rows of other kinds have too, in ns; SQL over columns of waits."""
    # Under the minimum a wait for a CPU has no row.
    runq = f"CASE WHEN runq_ns >= {min_latency_ns(trace)} THEN runq_ns ELSE 0 END"
    part = f"least({runq} + coalesce(gil_ns, 0), coalesce(wait_ns, 0))"
    return f"CASE WHEN kind IN {_OF_OTHERS!r} THEN greatest({part}, 0) ELSE 0 END"
