"""Whether the machines of a merged trace were recorded at the same time, as rates suppose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sltrace.analysis.meta import hosts, machines_of, recorded_ns
from sltrace.durations import format_duration

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

_TOGETHER = 0.9
"""Recordings that begin by hand on several machines have so much of their time in common."""


def not_together(trace: Trace, values: Mapping[str, Sequence[object]]) -> str:
    """What must be said beside a rate or a share of the time; empty if nothing.

    Args:
        trace: Where from.
        values: By dimension those that are wanted, as of a selection.
    """
    wanted = machines_of(trace, values)
    whole = recorded_ns(trace, machines=wanted)
    each = {
        host: recorded_ns(trace, machines=frozenset((machine,)))
        for machine, host in hosts(trace).items()
        if wanted is None or machine in wanted
    }
    if len(each) < 2 or min(each.values()) >= _TOGETHER * whole:
        return ""
    times = ", ".join(f"{host} for {format_duration(ns)}" for host, ns in each.items())
    return (
        f"machines were recorded at different times, {times}, of {format_duration(whole)} in all: "
        "what is per second, or a share of the time, is of all of it unless it is of a cgroup, "
        "process or CPU of one machine"
    )
