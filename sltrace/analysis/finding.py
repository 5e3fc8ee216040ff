"""One thing that is wrong, and what those that look for it share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from sltrace.analysis.selection import Value

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

LONG_NS = 1_000_000
"""A run-queue or I/O wait from which on somebody notices."""

_LONGEST_NAME = 80


class Name(StrEnum):
    """What is wrong; its value is what the JSON of every command calls it."""

    label: str
    """What it is called for people."""

    def __new__(cls, value: str, label: str) -> Name:
        """A name, and what people call it."""
        name = str.__new__(cls, value)
        name._value_, name.label = value, label
        return name

    CONTENTION = "contention", "Contention"
    BANDWIDTH = "bandwidth", "Real-time bandwidth"
    QUOTA = "quota", "CPU quota"
    STEAL = "steal", "Stolen by the host"
    PLACEMENT = "placement", "Placement"
    MIGRATION = "migration", "Migration"
    WAKEUP = "wakeup", "Slow wakeups"
    IO = "io", "I/O"
    GOROUTINE_LEAK = "goroutine_leak", "Goroutine leak"
    P_HOARDING = "p_hoarding", "P hoarding"
    LOST_P = "lost_p", "Lost P"
    GOROUTINE_BACKLOG = "goroutine_backlog", "Goroutine backlog"
    NETPOLLER_STARVATION = "netpoller_starvation", "Netpoller starvation"
    GC_AMPLIFICATION = "gc_amplification", "GC jitter amplification"
    GIL_HOG = "gil_hog", "GIL hog"
    GIL_CROWD = "gil_crowd", "GIL crowd"
    LOOP_BLOCKED = "loop_blocked", "Blocked event loop"
    LOOP_BUSY = "loop_busy", "Busy event loop"
    LOCK_CONVOY = "lock_convoy", "Lock convoy"
    PYTHON_GC = "python_gc", "Garbage collection"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        name: What it is.
        lost: Time lost a second, over all threads (seconds), which findings are sorted by.
        sentence: With numbers, for people, who read the name's label before it. Has names from the
            trace: make it safe to show.
        advice: What to do, and what to look at next.
        numbers: The numbers of the sentence; times in ns.
        values: The waits it is about, as a selection's values; empty where it is about none.
    """

    name: Name
    lost: float
    sentence: str
    advice: str
    numbers: Mapping[str, float]
    values: Mapping[str, tuple[Value, ...]]


def cpu_times(trace: Trace) -> dict[str, dict[str, int]]:
    """`cpu_times` of the metadata as far as it is what it should be."""
    value = trace.meta.get("cpu_times")
    if not isinstance(value, dict):
        return {}
    return {
        cpu: {n: v for n, v in times.items() if isinstance(v, int) and 0 <= v < 2**63}
        for cpu, times in value.items()
        if isinstance(times, dict) and cpu.isascii() and cpu.isdigit()
    }


def name_of(value: str | None) -> str:
    """A name of the trace for a sentence, cut where it is long."""
    if value is None:
        return "an unknown one"
    return value if len(value) <= _LONGEST_NAME else f"{value[: _LONGEST_NAME - 1]}…"
