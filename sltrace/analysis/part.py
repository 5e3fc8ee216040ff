"""A stretch of a trace's time as a trace of its own, for analyses that look at whole traces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sltrace.analysis.meta import clock_ns
from sltrace.errors import UsageError

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_CONDITIONS = {
    "waits": "end_ns >= {start} AND end_ns < {end}",
    "missed": "end_ns >= {start} AND end_ns < {end}",
    "counters": "end_ns > {start} AND start_ns < {end}",
}
"""Rows that belong to the stretch, by table. Losses are of whole intervals: those that touch it."""


def part_of(trace: Trace, start_ns: int, end_ns: int) -> Trace:
    """The waits that ended from `start_ns` on and before `end_ns` (CLOCK_MONOTONIC).

    Raises:
        UsageError: It is empty, or the trace has no single waits.
        TraceError: The trace is damaged.
    """
    if trace.meta.get("histogram_only"):
        raise UsageError("this trace has histograms only", "record without --histogram-only")
    if not 0 <= start_ns < end_ns < 1 << 63:
        raise UsageError("this part of the time is empty", "give an end after the start")
    clock = {
        "start_unix_ns": clock_ns(trace, "start_unix_ns") + start_ns - clock_ns(trace, "start_ns"),
        "start_ns": start_ns,
        "end_ns": end_ns,
    }
    part = type(trace)(trace.path, {**trace.meta, "clock": clock})
    for table, condition in _CONDITIONS.items():
        part.connection.execute(f"ALTER VIEW {table} RENAME TO all_{table}")
        part.connection.execute(
            f"CREATE VIEW {table} AS SELECT * FROM all_{table} "
            f"WHERE {condition.format(start=start_ns, end=end_ns)}"
        )
    return part
