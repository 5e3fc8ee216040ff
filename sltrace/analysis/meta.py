"""Fields of a trace's metadata that analysis computes with, whatever the file says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace


def min_latency_ns(trace: Trace) -> int:
    """Shortest run-queue wait that became a row; 0 where all did."""
    return _natural(trace.meta.get("min_latency_ns"))


def clock_ns(trace: Trace, name: str) -> int:
    """start_ns, end_ns (CLOCK_MONOTONIC), start_unix_ns or end_unix_ns; 0 where unknown."""
    clock = trace.meta.get("clock")
    return _natural(clock.get(name)) if isinstance(clock, dict) else 0


def _natural(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 2**63 else 0
