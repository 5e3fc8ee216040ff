"""What is wrong with a Python service, each with its threshold and the figures behind it.

A finding is a figure over a threshold, nothing else: the same trace always has the same findings.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sltrace.analysis.finding import Name
from sltrace.analysis.python.locks import Lock
from sltrace.analysis.python.tables import SLOW_NS, Collector, GilThread, Loop, Quota
from sltrace.analysis.quotas import at_last, cpus

GIL_WAITED = 0.1
"""GIL waits matter from this many threads on, waiting on average."""
GIL_HELD = 0.6
"""A thread for which others waited this share of all GIL waits' time is a hog."""
GIL_CROWDED = 1.0
"""Without a hog: so many threads waiting on average are a crowd."""
BLOCKED_NS = 20_000_000
"""A loop's thread that sleeps this long at once, and not for events, blocks its loop."""
BLOCKED_SHARE = 0.01
"""It matters if such sleeps are this share of the recording."""
LOOP_SLOW = 0.05
"""Iterations over SLOW_NS matter from this share of the recording on."""
CONVOY = 0.5
"""So many threads waiting on average for the lock at one place are a convoy, if they are"""
CONVOY_THREADS = 3
CONVOY_WAITS = 50
COLLECTED = 0.05
"""Share of the recording in garbage collections."""
THROTTLED = 0.05
"""Waits for CPU quota matter from this many threads on, waiting on average."""

Recorded = Callable[[int], int]

_THREADS = "threads waiting on average"
_SHARE = "of the recording"


@dataclass(frozen=True)
class Finding:
    """Something that is over its threshold.

    Attributes:
        name: What it is.
        pid: Process.
        sentence: What is wrong, and where.
        value: The figure, over `threshold`; both in `unit`.
        advice: What usually cures it.
    """

    name: Name
    pid: int
    sentence: str
    value: float
    threshold: float
    unit: str
    advice: str

    @property
    def is_time(self) -> bool:
        """Whether the figure is nanoseconds; the others are numbers of threads, and shares."""
        return self.unit.startswith("ns")


def findings(
    recorded_ns: Recorded,
    gil: Sequence[GilThread],
    loops: Sequence[Loop],
    locks: Sequence[Lock],
    collectors: Sequence[Collector],
    quotas: Sequence[Quota],
) -> list[Finding]:
    """All findings, in the order of the arguments.

    Args:
        recorded_ns: How long a process, by its pid, was recorded.
        gil, loops, locks, collectors, quotas: What it is in.
    """
    return [
        *_of_gil(recorded_ns, gil),
        *(f for loop in loops for f in _of_loop(recorded_ns(loop.pid), loop)),
        *_of_locks(recorded_ns, locks),
        *_of_collectors(recorded_ns, collectors),
        *_of_quotas(recorded_ns, quotas),
    ]


def _of_gil(recorded_ns: Recorded, threads: Sequence[GilThread]) -> Iterator[Finding]:
    by_pid: dict[int, list[GilThread]] = defaultdict(list)
    for thread in threads:
        by_pid[thread.pid].append(thread)
    for pid, mine in by_pid.items():
        wall_ns = recorded_ns(pid)
        waited = sum(t.waited_ns for t in mine)
        hog = max(mine, key=lambda t: t.held_ns)
        others = (waited - hog.waited_ns) / wall_ns
        if hog.held_ns >= GIL_HELD * waited and others >= GIL_WAITED:
            place = f" in {hog.holding}" if hog.holding else ""
            yield Finding(
                Name.GIL_HOG,
                pid,
                f"thread {hog.comm} ({hog.tid}) held the GIL{place} for "
                f"{hog.held_ns / waited:.0%} of the time of all waits for it; "
                f"{others:.2f} others waited on average",
                others,
                GIL_WAITED,
                _THREADS,
                "move the computation to another process, or to code that releases the GIL",
            )
        elif waited >= GIL_CROWDED * wall_ns:
            yield Finding(
                Name.GIL_CROWD,
                pid,
                f"{waited / wall_ns:.1f} threads waited at any time for the GIL, for each other",
                waited / wall_ns,
                GIL_CROWDED,
                _THREADS,
                "run more processes with fewer threads each",
            )


def _of_loop(wall_ns: int, loop: Loop) -> Iterator[Finding]:
    whose = f"the event loop of {loop.comm} ({loop.tid})"
    often = loop.blocked_ns >= BLOCKED_SHARE * wall_ns
    if loop.blocked_longest_ns >= BLOCKED_NS and often:
        shorter = loop.blocked_in_ns < loop.blocked_longest_ns
        length = f", and {loop.blocked_in_ns / 1e6:.0f} ms at once" if shorter else ""
        place = f"{length} in {loop.blocked_in}" if loop.blocked_in else ""
        place += f", task {loop.blocked_task}" if loop.blocked_task else ""
        yield Finding(
            Name.LOOP_BLOCKED,
            loop.pid,
            f"{whose} slept in blocking calls: {loop.blocked_ns / 1e6:.0f} ms in all, "
            f"{loop.blocked_longest_ns / 1e6:.0f} ms at once{place}",
            loop.blocked_longest_ns,
            BLOCKED_NS,
            "ns at once",
            "await an asynchronous version of it, or run it in an executor",
        )
    elif loop.slow_ns >= LOOP_SLOW * wall_ns:
        busy = "in iterations of" if loop.exact else "busy, one iteration or several, for"
        place = f", last seen in {loop.place}" if loop.place else ""
        place += f", task {loop.task}" if loop.task else ""
        yield Finding(
            Name.LOOP_BUSY,
            loop.pid,
            f"{whose} was {busy} {SLOW_NS / 1e6:.0f} ms and more for "
            f"{loop.slow_ns / wall_ns:.0%} of the time, the longest {loop.longest_ns / 1e6:.0f} ms"
            f"{place}",
            loop.slow_ns / wall_ns,
            LOOP_SLOW,
            _SHARE,
            "make fewer tasks at once, or give long computations to an executor",
        )


def _of_locks(recorded_ns: Recorded, locks: Sequence[Lock]) -> Iterator[Finding]:
    for lock in locks:
        wall_ns = recorded_ns(lock.pid)
        crowded = lock.threads >= CONVOY_THREADS and lock.waits >= CONVOY_WAITS
        if not lock.idle and crowded and lock.waited_ns >= CONVOY * wall_ns:
            yield Finding(
                Name.LOCK_CONVOY,
                lock.pid,
                f"{lock.threads} threads queued for a {lock.through or 'lock'} in {lock.place}, "
                f"{lock.waited_ns / wall_ns:.1f} at any time, in {lock.waits:,} waits",
                lock.waited_ns / wall_ns,
                CONVOY,
                _THREADS,
                "make the pool larger, or hold what it gives for less"
                if lock.through
                else "hold the lock for less, or give each thread its own",
            )


def _of_collectors(recorded_ns: Recorded, collectors: Sequence[Collector]) -> Iterator[Finding]:
    for collector in collectors:
        share = collector.under_way_ns / recorded_ns(collector.pid)
        if share >= COLLECTED:
            yield Finding(
                Name.PYTHON_GC,
                collector.pid,
                f"{collector.collections:,} garbage collections took {share:.0%} of the time, the "
                f"longest {collector.longest_ns / 1e6:.0f} ms",
                share,
                COLLECTED,
                _SHARE,
                "gc.freeze() after the start, and a higher gc.set_threshold()",
            )


def _of_quotas(recorded_ns: Recorded, quotas: Sequence[Quota]) -> Iterator[Finding]:
    for quota in quotas:
        waiting = quota.waited_ns / recorded_ns(quota.pid)
        if waiting >= THROTTLED:
            limit = ""
            if quota.quota_us and quota.period_us:
                worth = cpus(quota.quota_us, quota.period_us)
                limit = f" ({at_last(quota.quotas)}{worth:.2f} CPUs)"
            yield Finding(
                Name.QUOTA,
                quota.pid,
                f"the CPU quota of {quota.cgroup}{limit} was used up: {waiting:.1f} of "
                f"{quota.threads} threads waited for it at any time",
                waiting,
                THROTTLED,
                _THREADS,
                "fewer threads that compute at once, or a larger quota",
            )
