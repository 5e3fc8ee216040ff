"""Records of Go programs, as the programs' own runtime counts them, and the probes in them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from sltrace.target.go.histograms import LATENCIES, SINCE_1_20, STW_HISTOGRAMS
from sltrace.target.go.process import GoProcess
from sltrace.trace.reader import Trace
from tests.support.golang import Witness

BUCKETS = SINCE_1_20.buckets


def difference(
    after: dict[str, list[int]], before: dict[str, list[int]], name: str, buckets: int = BUCKETS
) -> list[int]:
    """Counts per bucket, without the runtime's bucket below 0."""
    pairs = zip(after[name], before[name], strict=True)
    return [a - b for a, b in pairs][1 : buckets + 1]


def bucketed(waits: Any) -> list[int]:
    """The same from single waits, by the bounds that runtime/metrics documents."""
    low = SINCE_1_20.bounds[0][:BUCKETS]
    return np.bincount(np.searchsorted(low, waits, side="right") - 1, minlength=BUCKETS).tolist()


@dataclass
class Measured:
    """The program's own metrics before and after some work, and when each was asked and known."""

    times: list[int]
    before: Any
    after: Any


def measured(running: Witness, work: str) -> Measured:
    """Has the witness do it."""
    times = [time.monotonic_ns()]
    before = running.ask("metrics")
    times.append(time.monotonic_ns())
    running.ask(work)
    times.append(time.monotonic_ns())
    after = running.ask("metrics")
    times.append(time.monotonic_ns())
    return Measured(times, before, after)


def assert_same_buckets(trace: Trace, work: Measured) -> None:
    """Bucket by bucket what /sched/latencies:seconds and the pauses say, read within the program.

    The program reads its histograms between sending the question and having the answer, so its
    counts lie between those of the waits in the shorter and in the longer time. A wait of 0 ns is
    no row but counted: the runtime notes one when a goroutine's state changed without it ever
    being runnable, and up to 1.25 for each return from a system call.
    """

    def between(start: int, end: int, condition: str) -> list[int]:
        return bucketed(
            column(
                trace,
                f"SELECT wait_ns FROM waits WHERE end_ns BETWEEN {start} AND {end} AND {condition}",
            )
        )

    for name, condition in (
        (LATENCIES, "kind = 'goroutine'"),
        (STW_HISTOGRAMS[2], "kind = 'stw' AND reason = 'GC'"),
    ):
        inner = between(work.times[1], work.times[2], condition)
        outer = between(work.times[0], work.times[3], condition)
        if name == LATENCIES:
            outer[0] += counters_of(trace)["go_zeros"]
        told = difference(work.after, work.before, name)
        assert all(a <= b <= c for a, b, c in zip(inner, told, outer, strict=True))
        assert sum(told) > (50 if name == LATENCIES else 0)
        assert sum(outer[1:]) - sum(inner[1:]) <= 0.2 * sum(told) + 4


def column(trace: Trace, query: str) -> Any:
    """The only column of a query's result."""
    return trace.sql(query).column(0).to_numpy()


def counters_of(trace: Trace) -> dict[str, int]:
    """What the Go probes counted."""
    found: dict[str, int] = trace.meta["sources"]["go"]["counters"]
    return found


def targets(trace: Trace) -> list[dict[str, Any]]:
    """The Go processes looked into."""
    return trace.sql("SELECT * FROM targets WHERE runtime = 'go' ORDER BY pid").to_pylist()


def breakpoints(process: GoProcess) -> int:
    """Of the functions probed, those whose code in memory is not that of the file."""
    sites = [process.sites.record, process.sites.tracked]
    changed = 0
    for site in sites:
        assert site is not None
        changed += process.memory.read(site + process.bias, 1) != process.image.read(site, 1)
    return changed
