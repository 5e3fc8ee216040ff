"""The scheduler of a Go process over time: three service-level numbers per window."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

from sltrace.analysis.meta import clock_ns, recordings_with

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

WINDOW_NS = 30_000_000_000


@dataclass(frozen=True)
class Window:
    """One process in one stretch of time; None where it was not recorded.

    Attributes:
        start_ns: From the start of the recording; likewise end_ns.
        p_utilisation: Share of the time of all Ps in which they were not idle.
        runnable_per_p: Goroutines queued, per P, on average.
        mean_wait_ns: Of goroutines for a P, of those sampled.
        p99_wait_ns: Likewise.
        waits: How many these are of.
        looked: Share of the time in which the process's probes were on: what these are of.
        spinning: Share of the readings in which an M looked for work while no goroutine waited.
    """

    pid: int
    start_ns: int
    end_ns: int
    p_utilisation: float | None
    runnable_per_p: float | None
    mean_wait_ns: float | None
    p99_wait_ns: int | None
    waits: int
    looked: float | None
    spinning: float | None


def windows(trace: Trace, length_ns: int = WINDOW_NS) -> tuple[Window, ...]:
    """Windows of every Go process, in order of time."""
    start, end = clock_ns(trace, "start_ns"), clock_ns(trace, "end_ns")
    rows = trace.sql(
        """
        WITH ticks AS (
          SELECT pid, ns, greatest(ns - ?, 0) // ? AS w,
            max(value) FILTER (WHERE name = 'gomaxprocs') AS ps,
            max(value) FILTER (WHERE name = 'idle_ps') AS idle,
            max(value) FILTER (WHERE name = 'spinning_ms') AS spinning,
            sum(value) FILTER (WHERE name IN ('runq_local', 'runq_global')) AS queued
          FROM gauges GROUP BY pid, ns HAVING ps > 0
        ), read AS (
          SELECT pid, w, avg(1 - idle / ps) AS busy, avg(queued / ps) AS queued,
            avg(CASE WHEN spinning > 0 AND queued = 0 THEN 1 ELSE 0 END) AS spinning
          FROM ticks GROUP BY pid, w
        ), waited AS (
          SELECT pid, greatest(end_ns - ?, 0) // ? AS w, count(*) AS n, avg(wait_ns) AS mean,
            quantile_disc(wait_ns, 0.99) AS p99
          FROM waits WHERE kind = 'goroutine' GROUP BY ALL
        )
        SELECT pid, w, busy, queued, spinning, mean, p99, coalesce(n, 0) AS n
        FROM read FULL JOIN waited USING (pid, w) ORDER BY pid, w
        """,
        [start, length_ns, start, length_ns],
    ).to_pylist()
    on = _on(trace)
    ended = _ended(trace)
    recorded = cache(partial(recordings_with, trace))
    return tuple(
        Window(
            pid=row["pid"],
            start_ns=row["w"] * length_ns,
            end_ns=min((row["w"] + 1) * length_ns, end - start),
            p_utilisation=row["busy"],
            runnable_per_p=row["queued"],
            mean_wait_ns=row["mean"],
            p99_wait_ns=row["p99"],
            waits=row["n"],
            looked=_looked(
                on.get(row["pid"], []),
                start + row["w"] * length_ns,
                min(start + (row["w"] + 1) * length_ns, ended.get(row["pid"]) or end),
                recorded(row["pid"]),
            ),
            spinning=row["spinning"],
        )
        for row in rows
    )


def _on(trace: Trace) -> dict[int, list[tuple[int, int]]]:
    """From when to when the probes of each process that has any were on (CLOCK_MONOTONIC)."""
    rows = trace.sql(
        "SELECT pid, ns, value > 0 AS on, lead(ns, 1, ?) OVER (PARTITION BY pid ORDER BY ns) AS "
        "until FROM gauges WHERE name = 'probes_on' AND ns IS NOT NULL ORDER BY pid, ns",
        [clock_ns(trace, "end_ns")],
    ).to_pylist()
    found: dict[int, list[tuple[int, int]]] = {row["pid"]: [] for row in rows}
    for row in rows:
        if row["on"]:
            found[row["pid"]].append((row["ns"], row["until"]))
    return found


def _ended(trace: Trace) -> dict[int, int | None]:
    """When each process ended; None where it outlived the recording."""
    rows = trace.sql(
        "SELECT pid, max(until_ns) AS ns FROM targets WHERE runtime = 'go' GROUP BY pid"
    ).to_pylist()
    return {row["pid"]: row["ns"] for row in rows}


def _looked(
    on: list[tuple[int, int]], start: int, end: int, recorded: list[tuple[int, int]]
) -> float | None:
    """Share of a window, from the first probe on, in which they were on; None for no probes.

    What lies between the recordings of a merged trace is none of it.
    """
    if not on:
        return None
    start = max(start, on[0][0])
    within, length = (_length_within(spans, start, end) for spans in (on, recorded))
    return min(within / length, 1) if length else 0.0


def _length_within(spans: list[tuple[int, int]], start: int, end: int) -> int:
    return sum(max(min(until, end) - max(since, start), 0) for since, until in spans)
