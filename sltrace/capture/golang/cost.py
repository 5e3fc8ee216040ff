"""What a level will cost a service, from what its runtime counts before any probe is in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from sltrace.target.go.histograms import LATENCIES
from sltrace.target.go.memory import UnreadableError
from sltrace.target.go.offsets import TRACKED_ONE_IN
from sltrace.target.go.process import GoProcess

OBSERVED_S = 0.2
"""How long the counts are watched, at least."""
_PROGRAM_HITS = 1.0
"""What a program takes, in hits: measured 0.3 to 1.25, by how deep the stacks are."""
_ONE_WAIT, _NO_WAIT = 3, 2
"""Changes of state: running, parked, runnable, running; or running, in a system call, running. The
probe of level 2 is not where a goroutine that was runnable comes by."""


@dataclass(frozen=True)
class Noted:
    """Waits, waits of 0 ns and stopped worlds that runtimes have noted, and when (monotonic, s)."""

    at: float
    waits: int
    zeros: int
    stopped: int


@dataclass(frozen=True)
class Expected:
    """What is expected of a level.

    Attributes:
        hits_per_s: Of all its probes.
        share: CPUs that they take.
    """

    hits_per_s: float
    share: float


def noted(processes: Sequence[GoProcess]) -> Noted:
    """Sums over all that can be read now."""
    waits = zeros = stopped = 0
    for process in processes:
        buckets = process.offsets.histogram.buckets
        try:
            for name, address in process.histograms.items():
                counts = process.memory.words(address, buckets)
                if name == LATENCIES:
                    # The first bucket is up to 64 ns: hardly a wait is as short.
                    zeros += int(counts[0])
                    waits += int(counts[1:].sum())
                else:
                    stopped += int(counts.sum())
        except UnreadableError:
            continue
    return Noted(time.monotonic(), waits, zeros, stopped)


def expected(level: int, before: Noted, after: Noted, hit_ns: float) -> Expected:
    """From two readings, and what one hit costs here.

    The runtime notes one wait in eight: the first probe is hit by these and by stopped worlds, the
    second by most changes of state that lead to one, that of level 3 by all of all.
    """
    seconds = max(after.at - before.at, 1e-6)
    waits, zeros = after.waits - before.waits, after.zeros - before.zeros
    hits = (waits + zeros + after.stopped - before.stopped) * (level >= 1)
    if level == 2:
        hits += (_ONE_WAIT - 1) * waits + _NO_WAIT * zeros
    if level == 3:
        hits += (_ONE_WAIT * waits + _NO_WAIT * zeros) * TRACKED_ONE_IN
    per_second = max(hits, 0) / seconds
    return Expected(per_second, per_second * hit_ns * (1 + _PROGRAM_HITS) / 1e9)


def sentence(level: int, processes: int, found: Expected, budget: float | None) -> str:
    """For people, before the recording begins."""
    whom = "1 Go process" if processes == 1 else f"{processes} Go processes"
    return (
        f"go level {level}: about {found.hits_per_s:,.0f} probe hits a second expected in {whom}, "
        f"{found.share:.1%} of a CPU"
        + (f"; at most {100 * budget:.3g}% of its CPU time goes into them" if budget else "")
    )
