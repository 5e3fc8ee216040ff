"""The slowest traces against plain Python over the same rows."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from sltrace.analysis.slowtraces import MAX_WAITS, slow_traces
from sltrace.analysis.timeline import CAUSES, slowest, timeline
from sltrace.model import LOST_KINDS, Kind
from sltrace.trace.reader import Trace
from tests.support.traces import SECOND, make_trace


def rows(n: int, traces: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    return [
        {
            "end_ns": int(rng.integers(SECOND, 9 * SECOND)),
            "wait_ns": int(rng.integers(1, SECOND // 10)),
            "kind": ("runq_wakeup", "blocked", "throttled")[rng.integers(3)],
            "tid": int(rng.integers(100, 105)),
            "trace_id": f"{rng.integers(traces):032x}" if rng.integers(4) else None,
        }
        for _ in range(n)
    ]


def test_order_totals_and_waits(tmp_path: Path) -> None:
    waits = rows(2000, 40)
    of: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in waits:
        if row["trace_id"]:
            of[row["trace_id"]].append(row)
    lost = {i: sum(r["wait_ns"] for r in rs if r["kind"] != "blocked") for i, rs in of.items()}
    found = slow_traces(Trace.open(make_trace(tmp_path, waits)), 10)
    order = sorted(lost, key=lambda i: (-lost[i], i))
    assert [t.trace_id for t in found.traces] == order[:10]
    assert found.of == len(of)
    for number, trace in enumerate(found.traces):
        mine = of[trace.trace_id]
        mine_lost = [r["wait_ns"] for r in mine if r["kind"] != "blocked"]
        assert trace.wait_ns == lost[trace.trace_id]
        assert (trace.count, trace.max_ns) == (len(mine_lost), max(mine_lost))
        assert trace.blocked_ns == sum(r["wait_ns"] for r in mine if r["kind"] == "blocked")
        assert trace.lanes == len({r["tid"] for r in mine})
        assert trace.hidden == 0
        here = found.waits["trace"] == number
        drawn = {
            (found.lanes[lane], found.kinds[kind], int(end) + trace.start_ns, int(wait))
            for lane, kind, end, wait in zip(
                *(found.waits[c][here] for c in ("lane", "kind", "end_ns", "wait_ns")), strict=True
            )
        }
        assert drawn == {(f"web ({r['tid']})", r["kind"], r["end_ns"], r["wait_ns"]) for r in mine}
        assert (found.waits["end_ns"][here] >= found.waits["wait_ns"][here]).all()


def test_a_trace_with_many_waits_keeps_the_longest(tmp_path: Path) -> None:
    waits = [{"trace_id": "a" * 32, "wait_ns": i, "end_ns": SECOND + i} for i in range(1, 1001)]
    found = slow_traces(Trace.open(make_trace(tmp_path, waits)))
    assert found.traces[0].hidden == 1000 - MAX_WAITS
    assert sorted(found.waits["wait_ns"]) == list(range(1001 - MAX_WAITS, 1001))


def test_goroutines_and_tasks_are_lanes(tmp_path: Path) -> None:
    waits = [
        {"trace_id": "a" * 32, "goid": 17},
        {"trace_id": "a" * 32, "goid": 17, "pid": 101},
        {"trace_id": "a" * 32, "task": "Task-3"},
        {"trace_id": "a" * 32, "task": "Task-3", "pid": 101},
        # A thread that is given another name stays one.
        {"trace_id": "a" * 32, "tid": 9, "comm": "new", "end_ns": SECOND // 2},
        {"trace_id": "a" * 32, "tid": 9, "culprit_tid": 0},
    ]
    trace = Trace.open(make_trace(tmp_path, waits))
    found = slow_traces(trace)
    of_both = {
        f"{what} of pid {pid}"
        for what in ("goroutine 17", "Task-3 (asyncio)")
        for pid in (100, 101)
    }
    assert set(found.lanes) == of_both | {"web (9)"}
    assert found.traces[0].lanes == 5
    assert set(found.because) == {"not known", "idle CPU (wakeup latency)"}
    # The same in `explain`.
    assert set(timeline(trace, "a" * 32).lanes) == set(found.lanes)
    assert slowest(trace).traces[0].lanes == 5


def test_who_ended_a_wait_for_a_cpu_is_not_to_blame_for_it(tmp_path: Path) -> None:
    woken = {"trace_id": "a" * 32, "waker_tid": 7, "waker_comm": "db"}
    waits = [woken | {"kind": kind} for kind in ("runq_wakeup", "blocked")]
    trace = Trace.open(make_trace(tmp_path, waits))
    found = slow_traces(trace)
    said = {
        found.kinds[k]: found.because[b]
        for k, b in zip(found.waits["kind"], found.waits["because"], strict=True)
    }
    assert said == {"runq_wakeup": "not known", "blocked": "ended by db 7"}
    assert {w.kind: w.because for w in timeline(trace, "a" * 32).waits} == said


def test_no_ids_no_traces(tmp_path: Path) -> None:
    found = slow_traces(Trace.open(make_trace(tmp_path, [{}, {}])))
    assert (found.traces, found.of, len(found.waits["trace"])) == ([], 0, 0)


def test_time_lost_is_the_same_everywhere(tmp_path: Path) -> None:
    known = [kind.label for kind in Kind]
    rows: list[dict[str, Any]] = [
        {"kind": kind, "wait_ns": 1 << i, "trace_id": "ab" * 16, "tid": i}
        for i, kind in enumerate([*known, "of another version"])
    ]
    trace = Trace.open(make_trace(tmp_path, rows))
    left_out = {"blocked", "goroutine_blocked", "loop", "of another version"}
    want = sum(row["wait_ns"] for row in rows if row["kind"] not in left_out)
    (slow,), (listed,) = slow_traces(trace).traces, slowest(trace).traces
    assert (slow.wait_ns, listed.lost_ns) == (want, want)
    asleep = sum(1 << known.index(k) for k in ("blocked", "goroutine_blocked"))
    assert (slow.blocked_ns, listed.blocked_ns) == (asleep, asleep)
    # Every kind that is lost is something that time can go to, and the other way round.
    causes = {kind for cause, kinds in CAUSES.items() if cause != "blocked" for kind in kinds}
    assert causes == set(LOST_KINDS) == set(known) - left_out
