"""What is wrong with goroutines: ever more of them wait, or stand still for too long."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sltrace.analysis.finding import Name
from sltrace.analysis.golang.finding import Finding
from sltrace.analysis.golang.sites import UNKNOWN, sites
from sltrace.analysis.meta import clock_ns
from sltrace.model import GOROUTINES_SCANNED, Flag

if TYPE_CHECKING:
    from sltrace.trace.reader import Trace

LEAK_GROWTH = 100
_LEAK_SCANS = 4
_LEAK_LATELY = 0.1
"""Of what a stack grew by, in the last third of the scans; a pool that was filled has nothing."""
_SURE = 4.0
"""Standard deviations that are no chance."""
AMPLIFIED, AMPLIFIED_BY_NS = 3.0, 500_000
AMPLIFIED_SHARE = 0.25
"""A goroutine has luck or not: half of them go on at once in the sick example."""
_STOPS_AT_LEAST = 8


def leaks(trace: Trace) -> list[Finding]:
    """A stack with ever more goroutines waiting in it."""
    origin = clock_ns(trace, "start_ns")
    # A scan in which nobody waits there counts 0. Where there are more goroutines than are looked
    # at, each of those stands for several.
    rows = trace.sql(
        """
        WITH scans AS (
          SELECT pid, ns, greatest(sum(count) / ?, 1) AS stands_for
          FROM samples WHERE source = 'wall' AND count > 0 GROUP BY pid, ns
        ), seen AS (
          SELECT pid, stack_runtime AS stack, reason, ns, sum(count)::BIGINT AS n
          FROM samples WHERE state = 'waiting' GROUP BY ALL
        ), places AS (
          SELECT pid, stack, reason, min(ns) AS first FROM seen GROUP BY ALL
        ), filled AS (
          SELECT p.pid, p.stack, p.reason, s.ns, s.stands_for, coalesce(w.n, 0) AS n
          FROM places p JOIN scans s ON s.pid = p.pid AND s.ns >= p.first
          LEFT JOIN seen w ON w.pid = p.pid AND w.ns = s.ns AND w.stack IS NOT DISTINCT FROM p.stack
            AND w.reason IS NOT DISTINCT FROM p.reason
        )
        SELECT pid, stack, reason, list(ns ORDER BY ns) AS ns, list(n ORDER BY ns) AS counts,
          max(stands_for) AS stands_for
        FROM filled GROUP BY pid, stack, reason
        HAVING count(*) >= ? AND max(n) - min(n) >= ?
        """,
        [GOROUTINES_SCANNED, _LEAK_SCANS, LEAK_GROWTH],
    ).to_pylist()
    named = sites(trace, [r["stack"] for r in rows])
    found = []
    for row in rows:
        counts = np.array(row["counts"])
        steps = np.diff(counts)
        # Counts of a sample of the goroutines go up and down by some per cent.
        falls = steps < -0.05 * counts[:-1]
        growing = steps > 0
        grown = counts[-1] - counts[0]
        lately = counts[-1] - counts[-1 - math.ceil(len(steps) / 3)]
        if falls.any() or growing.mean() < 0.6 or lately < _LEAK_LATELY * grown:
            continue
        if grown < max(LEAK_GROWTH, _SURE * _stray(row)):
            continue
        site = named.get(row["stack"], UNKNOWN)
        seconds = (row["ns"][-1] - row["ns"][0]) / 1e9
        found.append(
            Finding(
                Name.GOROUTINE_LEAK,
                row["pid"],
                row["ns"][0] - origin,
                row["ns"][-1] - origin,
                f"a stack must not only grow, by {LEAK_GROWTH} or more",
                f"goroutines waiting in {site.where} ({row['reason']}), started by {site.started}, "
                f"grew from {counts[0]} to {counts[-1]} in {seconds:.0f} s and never fell",
                {
                    "where": site.where,
                    "started": site.started,
                    "reason": row["reason"],
                    "counts": counts.tolist(),
                },
            )
        )
    return found


def _stray(row: dict[str, Any]) -> float:
    """By how much the difference of a stack's last and first count is chance: one deviation."""
    if row["stands_for"] <= 1:
        return 0.0
    return math.sqrt((row["counts"][0] + row["counts"][-1]) * row["stands_for"])


def amplification(trace: Trace) -> list[Finding]:
    """Goroutines locked to a thread that stood still much longer than the world was stopped.

    Each is held against the time from its own stop on: before, it ran, as while the kernel kept
    another one from stopping. A process's world is stopped once at a time, so that stop is the next
    to end. All stops count alike: neither one that the kernel made long outweighs many, nor one in
    which many goroutines stood still.
    """
    origin = clock_ns(trace, "start_ns")
    rows = trace.sql(
        """
        WITH stops AS (
          SELECT pid, end_ns, end_ns - wait_ns AS began_ns FROM waits WHERE kind = 'stw'
        ), locked AS (
          SELECT pid, wait_ns, end_ns, end_ns - wait_ns AS began_ns, stack_runtime AS stack
          FROM waits WHERE kind = 'goroutine' AND flags & ? <> 0
        ), stopped AS (
          SELECT g.pid, g.wait_ns AS still, s.end_ns, s.end_ns - g.began_ns AS pause, g.stack,
            still >= ? * pause AND still - pause >= ? AS amplified
          FROM locked g ASOF JOIN stops s ON g.pid = s.pid AND g.began_ns < s.end_ns
          WHERE g.end_ns >= s.end_ns AND g.began_ns >= s.began_ns - 100000
        ), each AS (
          SELECT pid, count_if(amplified) / count(*) AS share FROM stopped GROUP BY pid, end_ns
        ), sick AS (
          SELECT pid, count(*) AS stops, avg(share) AS amplified FROM each GROUP BY pid
          HAVING stops >= ? AND avg(share) >= ?
        )
        SELECT pid, min(end_ns) AS first, max(end_ns) AS last, count(*) AS n,
          any_value(stops) AS stops, any_value(sick.amplified) AS amplified,
          median(still - pause) AS longer,
          quantile_disc(still / pause, [0.5, 0.9, 0.99]) AS factors,
          median(pause) AS pause, median(still) AS still, mode(stack) AS stack
        FROM stopped JOIN sick USING (pid) GROUP BY pid
        """,
        [
            int(Flag.LOCKED_THREAD),
            AMPLIFIED,
            AMPLIFIED_BY_NS,
            _STOPS_AT_LEAST,
            AMPLIFIED_SHARE,
        ],
    ).to_pylist()
    named = sites(trace, [r["stack"] for r in rows])
    return [
        Finding(
            Name.GC_AMPLIFICATION,
            row["pid"],
            row["first"] - origin,
            row["last"] - origin,
            f"{AMPLIFIED_SHARE:.0%} of them {AMPLIFIED:.0f} times as long as the world was "
            f"stopped, and {AMPLIFIED_BY_NS / 1e6:.1f} ms longer",
            f"{row['amplified']:.0%} of the goroutines locked to their thread stood still much "
            f"longer than the world was stopped, on average over {row['stops']} stops "
            f"({row['still'] / 1e3:.0f} us against {row['pause'] / 1e3:.0f} us, medians; a tenth "
            f"of them "
            f"{row['factors'][1]:.0f} times as long and more), in "
            f"{named.get(row['stack'] or 0, UNKNOWN).where}",
            {
                "waits": row["n"],
                "stops": row["stops"],
                "amplified": row["amplified"],
                "factor_p50": row["factors"][0],
                "factor_p90": row["factors"][1],
                "factor_p99": row["factors"][2],
                "pause_ns": row["pause"],
                "stood_still_ns": row["still"],
                "longer_ns": row["longer"],
            },
        )
        for row in rows
    ]
