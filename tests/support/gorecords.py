"""Records of Go programs, as the programs' own runtime counts them, and the probes in them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def bucketed(waits: Any) -> NDArray[np.int64]:
    """The same from single waits, by the bounds that runtime/metrics documents."""
    low = SINCE_1_20.bounds[0][:BUCKETS]
    return np.bincount(np.searchsorted(low, waits, side="right") - 1, minlength=BUCKETS)


@dataclass
class Measured:
    """The program's own metrics before and after some work, and when each was asked and known."""

    times: list[int]
    before: Any
    after: Any


COMPARED = {LATENCIES: 50, STW_HISTOGRAMS[2]: 1}
"""Histograms that `assert_same_buckets` compares, and the waits that each must have at least."""


def measured(running: Witness, work: str, least: Mapping[str, int] | None = None) -> Measured:
    """Has the witness do it, again until its histograms have `least` waits more."""
    asked, before, known = _metrics(running)
    for _ in range(20):
        running.ask(work)
        asked_again, after, known_again = _metrics(running)
        if all(sum(difference(after, before, n)) >= count for n, count in (least or {}).items()):
            break
    return Measured([asked, known, asked_again, known_again], before, after)


def _metrics(running: Witness) -> tuple[int, Any, int]:
    """The program's metrics, when it was asked, and when they were known.

    Of the quickest of some answers: what else happens meanwhile may be in them or not.
    """
    answers = []
    for _ in range(20):
        asked = time.monotonic_ns()
        metrics = running.ask("metrics")
        answers.append((asked, metrics, time.monotonic_ns()))
        if answers[-1][2] - asked < 1_000_000:
            break
    return min(answers, key=lambda answer: answer[2] - answer[0])


def assert_same_buckets(trace: Trace, work: Measured, *, zeros: bool = True) -> None:
    """Bucket by bucket what /sched/latencies:seconds and the pauses say, read within the program.

    The program reads its histograms between sending the question and having the answer, so its
    counts lie between those of the waits in the shorter and in the longer time. A wait of 0 ns is
    no row but counted: the runtime notes one when a goroutine's state changed without it ever
    being runnable, and up to 1.25 for each return from a system call. `zeros`: whether all of
    these are counted.
    """
    for name, condition in (
        (LATENCIES, "kind = 'goroutine'"),
        (STW_HISTOGRAMS[2], "kind = 'stw' AND reason = 'GC'"),
    ):
        asked, known, asked_again, known_again = work.times
        inner = _between(trace, known, asked_again, condition)
        outer = _between(trace, asked, known_again, condition)
        inner -= _counted_late(trace, known, asked_again, known_again, condition)
        outer += _counted_late(trace, 0, asked, known, condition)
        told = np.array(difference(work.after, work.before, name))
        if name == LATENCIES:
            outer[0] += counters_of(trace)["go_zeros"] if zeros else told[0]
        differ = np.flatnonzero((inner > told) | (told > outer))
        assert not len(differ), (name, differ, inner[differ], told[differ], outer[differ])
        assert sum(told) >= COMPARED[name]
        assert sum(outer[1:]) - sum(inner[1:]) <= 0.2 * sum(told) + 4


def _between(trace: Trace, start: int, end: int, condition: str) -> NDArray[np.int64]:
    within = f"end_ns BETWEEN {start} AND {end} AND {condition}"
    return bucketed(column(trace, f"SELECT wait_ns FROM waits WHERE {within}"))


def _counted_late(
    trace: Trace, since: int, asked: int, known: int, condition: str
) -> NDArray[np.int64]:
    """Waits from `since` on that had ended when the program was asked, and it may not have counted.

    A thread may lose its CPU after the probe and before it counts, and have none while the program
    reads. That is one wait of each thread, its last one before.
    """
    return bucketed(
        column(
            trace,
            f"""
            WITH off AS (
              SELECT tid, end_ns - wait_ns AS since FROM waits
              WHERE kind = 'runq_preempt' AND end_ns >= {asked} AND end_ns - wait_ns <= {known}
              UNION ALL SELECT tid, end_ns - high_ns FROM missed
              WHERE end_ns >= {asked} AND end_ns - high_ns <= {known}
            ), ended AS (SELECT tid, end_ns, wait_ns FROM waits WHERE {condition})
            SELECT DISTINCT ON (off.tid, end_ns) wait_ns FROM off ASOF JOIN ended
            ON off.tid = ended.tid AND since >= end_ns WHERE end_ns BETWEEN {since} AND {asked}
            """,
        )
    )


def column(trace: Trace, query: str) -> Any:
    """The only column of a query's result."""
    return trace.sql(query).column(0).to_numpy()


def counters_of(trace: Trace) -> dict[str, int]:
    """What the Go probes counted."""
    found: dict[str, int] = trace.meta["sources"]["go"]["counters"]
    return found


def targets(trace: Trace) -> list[dict[str, Any]]:
    """The Go processes looked into."""
    found = trace.sql("SELECT * FROM targets WHERE runtime = 'go' ORDER BY pid")
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


def breakpoints(process: GoProcess) -> int:
    """Of the functions probed, those whose code in memory is not that of the file."""
    sites = [process.sites.record, process.sites.tracked]
    changed = 0
    for site in sites:
        assert site is not None
        changed += process.memory.read(site + process.bias, 1) != process.image.read(site, 1)
    return changed
