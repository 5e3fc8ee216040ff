"""The scheduler of a Go process over time: three service-level numbers per window."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sltrace.analysis.golang.programs import Program, programs
from sltrace.analysis.meta import clock_ns, recordings_with
from sltrace.plural import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sltrace.trace.reader import Trace

WINDOW_NS = 30_000_000_000
_NAMED, _LONGEST = 5, 200
_EVER = 1 << 62


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


_WINDOW = "least(greatest({ns} - since, 0) // ?, greatest(until - since - 1, 0) // ?)"
"""Which of its recording's windows a time is in; what is told a moment too late, in the last."""


def windows(trace: Trace, length_ns: int = WINDOW_NS) -> tuple[Window, ...]:
    """Windows of every Go process, in order of time.

    Each is within one recording of the trace, and of one program of its process.
    """
    origin = clock_ns(trace, "start_ns")
    recordings = _recordings(trace)
    rows = trace.sql(
        f"""
        WITH recordings AS (
          SELECT unnest(?::BIGINT[]) AS pid, unnest(?::BIGINT[]) AS reach,
            unnest(?::BIGINT[]) AS since, unnest(?::BIGINT[]) AS until
        ), ticks AS (
          SELECT pid, ns,
            max(value) FILTER (WHERE name = 'gomaxprocs') AS ps,
            max(value) FILTER (WHERE name = 'idle_ps') AS idle,
            max(value) FILTER (WHERE name = 'spinning_ms') AS spinning,
            sum(value) FILTER (WHERE name IN ('runq_local', 'runq_global')) AS queued
          FROM gauges GROUP BY pid, ns HAVING ps > 0
        ), read AS (
          SELECT t.pid, reach, since, until, {_WINDOW.format(ns="ns")} AS w,
            1 - sum(idle) / sum(ps) FILTER (idle IS NOT NULL) AS busy,
            sum(queued) / sum(ps) FILTER (queued IS NOT NULL) AS queued,
            avg(CASE WHEN spinning > 0 AND queued = 0 THEN 1 ELSE 0 END) AS spinning
          FROM ticks t ASOF JOIN recordings r ON t.pid = r.pid AND t.ns >= reach GROUP BY ALL
        ), waited AS (
          SELECT t.pid, reach, since, until, {_WINDOW.format(ns="end_ns")} AS w, count(*) AS n,
            avg(wait_ns) AS mean, quantile_disc(wait_ns, 0.99) AS p99
          FROM waits t ASOF JOIN recordings r ON t.pid = r.pid AND end_ns >= reach
          WHERE kind = 'goroutine' GROUP BY ALL
        )
        SELECT pid, reach, since, until, w, busy, queued, spinning, mean, p99, coalesce(n, 0) AS n
        FROM read FULL JOIN waited USING (pid, reach, since, until, w) ORDER BY pid, since, w
        """,
        [*recordings, *[length_ns] * 4],
    ).to_pylist()
    on, ended = _on(trace), _ended(trace)
    found = []
    for row in rows:
        start = row["since"] + row["w"] * length_ns
        end = min(start + length_ns, row["until"])
        spans = [s for s in on.get(row["pid"], []) if row["reach"] <= s[0] < row["until"]]
        found.append(
            Window(
                pid=row["pid"],
                start_ns=start - origin,
                end_ns=end - origin,
                p_utilisation=row["busy"],
                runnable_per_p=row["queued"],
                mean_wait_ns=row["mean"],
                p99_wait_ns=row["p99"],
                waits=row["n"],
                looked=_looked(spans, start, min(end, ended.get(row["pid"]) or end)),
                spinning=row["spinning"],
            )
        )
    return tuple(found)


def _recordings(trace: Trace) -> tuple[list[int], list[int], list[int], list[int]]:
    """Of each Go process the recordings it is in: pid, from when what is told is of it, start, end.

    Those that overlap are one; one of a process that became another program is several.
    """
    pids = trace.sql(
        "SELECT DISTINCT pid FROM (SELECT pid FROM gauges UNION ALL SELECT pid FROM waits "
        "WHERE kind = 'goroutine') WHERE pid IS NOT NULL"
    )["pid"].to_pylist()
    found: tuple[list[int], list[int], list[int], list[int]] = ([], [], [], [])
    several = programs(trace)
    for pid in pids:
        joined: list[tuple[int, int]] = []
        for start, end in recordings_with(trace, pid, "go"):
            if joined and start <= joined[-1][1]:
                start, end = joined[-1][0], max(end, joined.pop()[1])
            joined.append((start, end))
        before = None
        for start, end in joined:
            # What is read a moment before a recording, or after it, is of that one.
            reach = 0 if before is None else (before + start) // 2
            for part in _parts(several.get(pid, []), reach, start, end):
                for column, value in zip(found, (pid, *part), strict=True):
                    column.append(value)
            before = end
    return found


def _parts(each: list[Program], reach: int, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """A recording by the programs that a process was meanwhile: reach, start and end of each."""
    since = start
    for program in each:
        if start <= program.after_ns < end:
            since = min(program.from_ns, end)
        if since < program.until_ns < end:
            yield reach, since, program.until_ns
            reach = program.until_ns + 1
    yield reach, since, end


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
        "SELECT pid, last(until_ns ORDER BY from_ns) AS ns FROM targets WHERE runtime = 'go' "
        "AND level IS NOT NULL GROUP BY pid"
    ).to_pylist()
    return {row["pid"]: row["ns"] for row in rows}


def _looked(on: list[tuple[int, int]], start: int, end: int) -> float | None:
    """Share of a window, from the first probe on, in which they were on; None for no probes."""
    if not on:
        return None
    start = max(start, on[0][0])
    within = sum(max(min(until, end) - max(since, start), 0) for since, until in on)
    return min(within / (end - start), 1) if start < end else 0.0


def unread(trace: Trace) -> list[str]:
    """A sentence on the processes of whose memory nothing was read, if there are any."""
    # What it became by exec may have been read, though it was not.
    rows = trace.sql(
        "WITH told AS (SELECT pid, coalesce(until_ns, ?) AS last, "
        "lag(until_ns, 1, -1) OVER (PARTITION BY pid ORDER BY from_ns) AS before FROM targets "
        "WHERE runtime = 'go' AND level IS NOT NULL) "
        "SELECT DISTINCT pid FROM told t ANTI JOIN gauges g "
        "ON t.pid = g.pid AND g.ns > coalesce(before, -1) AND g.ns <= last ORDER BY pid",
        [_EVER],
    ).to_pylist()
    if not rows:
        return []
    return [
        f"nothing was read of {_named(rows)}: it ended at once, or the recorder had no time",
    ]


def refused(trace: Trace) -> list[str]:
    """A sentence on the processes that could not be looked into, if there are any."""
    rows = trace.sql(
        "SELECT DISTINCT pid, why FROM targets WHERE runtime = 'go' AND level IS NULL ORDER BY pid"
    ).to_pylist()
    if not rows:
        return []
    reasons = Counter(row["why"] or "it is not told why" for row in rows)
    ((why, _),) = reasons.most_common(1)
    more = "; `sltrace go TRACE` says why of each" if len(reasons) > 1 else ""
    most = "of most, " if len(reasons) > 1 else ""
    return [f"the scheduling within {_named(rows)} is not known: {most}{why[:_LONGEST]}{more}"]


def _named(rows: list[dict[str, Any]]) -> str:
    """How many Go programs these are, and the first of them by pid."""
    named = ", ".join(str(row["pid"]) for row in rows[:_NAMED])
    more = ", ..." if len(rows) > _NAMED else ""
    return f"{counted(len(rows), 'Go program')} ({named}{more})"
