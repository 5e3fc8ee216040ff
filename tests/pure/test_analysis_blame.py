"""blame: every nanosecond in one cell, against a plain loop over the rows."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sltrace.analysis.blame import blame, top_culprit
from sltrace.analysis.latency import stat
from sltrace.analysis.selection import Selection
from sltrace.errors import UsageError
from sltrace.model import RUNQ_KINDS
from sltrace.trace.reader import Trace
from tests.support.traces import make_trace

KINDS = [*RUNQ_KINDS, "throttled", "blocked"]


def test_a_process_has_one_name(tmp_path: Path) -> None:
    """That of its main thread at last, whichever of its threads waited or ran."""
    pair = {"kind": "runq_preempt", "pid": 7, "culprit_pid": 8, "culprit_ns": 9, "wait_ns": 9}
    rows = [
        pair | {"tid": 7, "comm": "sh", "culprit_tid": 9, "culprit_comm": "worker"},
        pair | {"tid": 70, "comm": "zeta", "culprit_tid": 8, "culprit_comm": "sh"},
        pair | {"kind": "throttled", "tid": 70, "comm": "zeta", "culprit_cgroup": "/q"},
    ]
    tasks = [
        {"pid": pid, "tid": pid, "comm": comm, "from_ns": ns}
        for pid, comm, ns in ((7, "sh", 1), (7, "miner", 2), (8, "sh", 1), (8, "compress", 2))
    ]
    found = blame(Trace.open(make_trace(tmp_path, rows, tasks=tasks)), "pid")
    named = {(c.victim_name, c.what, c.culprit_name) for c in found.cells}
    assert named == {("miner", "task", "compress"), ("miner", "quota", "/q")}


@st.composite
def waits(draw: st.DrawFn) -> dict[str, Any]:
    row: dict[str, Any] = {
        "kind": draw(st.sampled_from(KINDS)),
        "wait_ns": draw(st.integers(0, 10**9)),
        "comm": draw(st.sampled_from(["web", "db"])),
        "pid": draw(st.sampled_from([10, 20])),
        "cgroup": draw(st.sampled_from(["/a", "/b", None])),
        "flags": draw(st.sampled_from([0, 8, 12])),
    }
    culprit = draw(st.sampled_from([None, 0, 7, 8]))
    if culprit is not None:
        row |= {
            "culprit_tid": culprit,
            "culprit_pid": culprit,
            "culprit_comm": "idle" if culprit == 0 else draw(st.sampled_from(["idle", "hog"])),
            "culprit_cgroup": draw(st.sampled_from(["/h", None])),
            # More than the wait, as a broken recorder could write it.
            "culprit_ns": draw(st.integers(0, 2 * 10**9)),
            "culprit_others": draw(st.integers(0, 2)),
        }
    return row


def cells_by_hand(rows: list[dict[str, Any]], by: str) -> Counter[tuple[Any, ...]]:
    cells: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        victim, wait = row[by], row["wait_ns"]
        if row["kind"] == "blocked":
            continue
        if row["kind"] == "throttled":
            cells[victim, "quota", row.get("culprit_cgroup") or row["cgroup"]] += wait
        elif "culprit_tid" not in row:
            cells[victim, "unknown", None] += wait
        else:
            held = min(row["culprit_ns"], wait)
            if row["culprit_tid"] == 0:
                cells[victim, "idle", None] += held
            else:
                cells[victim, "task", row[f"culprit_{by}"]] += held
            others = row["culprit_others"] and not row["flags"] & 8
            cells[victim, "others" if others else "unknown", None] += wait - held
    return +cells


@given(rows=st.lists(waits(), max_size=25), by=st.sampled_from(["cgroup", "comm", "pid"]))
@settings(max_examples=40)
def test_cells_are_those_of_a_loop_and_add_up_to_stat(rows: list[dict[str, Any]], by: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # Filtered, so that nothing is concluded from the waits of other threads.
        meta = {"filters": {"comm": ["web", "db"]}}
        trace = Trace.open(make_trace(Path(folder), rows, meta=meta))
        whole, cut = blame(trace, by), blame(trace, by, limit=2)
        totals = stat(trace).totals
        top = top_culprit(trace)
    ran: Counter[str] = Counter()
    for (_, what, culprit), ns in cells_by_hand(rows, "comm").items():
        ran[culprit] += ns if what == "task" else 0
    longest = max(ran.values(), default=0)
    assert (top or (None, 0))[1] == longest
    assert not longest or (top and ran[str(top[0])] == longest)
    found = Counter({(c.victim, c.what, c.culprit): c.wait_ns for c in whole.cells})
    assert +found == cells_by_hand(rows, by)
    expected = sum(totals[name].total_ns for name in ("runq", "throttled") if name in totals)
    assert sum(c.wait_ns for c in whole.cells) == whole.total_ns == expected
    assert sum(c.wait_ns for c in cut.cells) + cut.rest.wait_ns == expected
    assert cut.cells == whole.cells[:2]
    blamed = [r for r in rows if r["kind"] != "blocked"]
    assert whole.waits == len(blamed)
    assert whole.partial == sum(r["flags"] & 8 > 0 for r in blamed)


def test_a_hog_is_named(tmp_path: Path) -> None:
    hog = {
        "culprit_pid": 9,
        "culprit_tid": 9,
        "culprit_comm": "hog",
        "culprit_cgroup": "/hog",
        "culprit_ns": 9_900,
        "culprit_others": 1,
    }
    trace = Trace.open(make_trace(tmp_path, [{"wait_ns": 10_000, "cgroup": "/web", **hog}] * 3))
    first, second = blame(trace).cells
    assert (first.victim, first.what, first.culprit) == ("/web", "task", "/hog")
    assert (first.wait_ns, first.waits) == (29_700, 3)
    assert (second.what, second.wait_ns) == ("others", 300)
    by_pid = blame(trace, "pid").cells[0]
    assert (by_pid.culprit, by_pid.culprit_name, by_pid.victim_name) == (9, "hog", "web")


def test_a_task_called_idle_is_not_the_idle_cpu(tmp_path: Path) -> None:
    row = {"culprit_tid": 5, "culprit_pid": 5, "culprit_comm": "idle", "culprit_ns": 1000}
    (cell,) = blame(Trace.open(make_trace(tmp_path, [row])), "comm").cells
    assert (cell.what, cell.culprit) == ("task", "idle")


def test_what_cannot_be_blamed_is_a_usage_error(tmp_path: Path) -> None:
    trace = Trace.open(make_trace(tmp_path, [{}]))
    with pytest.raises(UsageError, match="cgroup, comm, pid"):
        blame(trace, "cpu")
    with pytest.raises(UsageError, match="blocked"):
        blame(trace, selection=Selection(values={"kind": ["blocked"]}))
    trace = Trace.open(make_trace(tmp_path, meta={"histogram_only": True}))
    with pytest.raises(UsageError, match="--histogram-only"):
        blame(trace)


def one_cpu(
    seed: int, switches: int = 400
) -> tuple[list[dict[str, Any]], Counter[tuple[str, str]]]:
    """Waits of six threads of three cgroups that share a CPU, and the true time by cgroups.

    The CPU runs one thread at a time and is never idle; what each victim's queue saw is added up
    from the slices as they happen, with no look at the rows.
    """
    rng = np.random.default_rng(seed)
    group = {tid: f"/{'abc'[tid % 3]}" for tid in range(10, 16)}
    # Queued since, kind, who ran since.
    state: dict[int, tuple[int, str, dict[int, int]]] = {
        tid: (1000, "runq_wakeup", {}) for tid in group
    }
    asleep: dict[int, tuple[int, int]] = {}
    rows: list[dict[str, Any]] = []
    true: Counter[tuple[str, str]] = Counter()
    now = 1000
    for _ in range(switches):
        tid = int(rng.choice(sorted(state)))
        since, kind, ran = state.pop(tid)
        row = {"tid": tid, "pid": tid, "end_ns": now, "kind": kind, "cgroup": group[tid], "cpu": 0}
        row |= {"wait_ns": now - since}
        if ran:
            top = max(ran, key=lambda t: (ran[t], t))
            row |= {"culprit_tid": top, "culprit_pid": top, "culprit_ns": ran[top]}
            row |= {"culprit_cgroup": group[top], "culprit_others": len(ran) - 1}
            same = sum(ns for t, ns in ran.items() if group[t] == group[top])
            true[group[tid], group[top]] += same
            true[group[tid], "others"] += now - since - same
        rows.append(row)
        end = now + int(rng.integers(1, 1000))
        for t, (wake, began) in list(asleep.items()):
            if wake < end or not state:
                del asleep[t]
                wake = max(now, min(wake, end))
                rows.append({**row, "tid": t, "pid": t, "cgroup": group[t], "kind": "blocked"})
                rows[-1] |= {"end_ns": wake, "wait_ns": wake - began}
                for name in [n for n in rows[-1] if n.startswith("culprit")]:
                    del rows[-1][name]
                state[t] = (wake, "runq_wakeup", {})
        for queued, _, seen in state.values():
            if end > max(now, queued):
                seen[tid] = seen.get(tid, 0) + end - max(now, queued)
        if rng.random() < 0.4:
            asleep[tid] = (end + int(rng.integers(1, 2000)), end)
        else:
            state[tid] = (end, "runq_preempt", {})
        now = end
    return rows, +true


@pytest.mark.parametrize("seed", [1, 2])
def test_by_cgroup_all_threads_of_the_culprits_cgroup_count(tmp_path: Path, seed: int) -> None:
    rows, true = one_cpu(seed)
    trace = Trace.open(make_trace(tmp_path, rows))
    found: Counter[tuple[str, str]] = Counter()
    for cell in blame(trace).cells:
        found[str(cell.victim), str(cell.culprit or cell.what)] += cell.wait_ns
    unknown = sum(ns for (_, what), ns in found.items() if what == "unknown")
    assert unknown == sum(
        r["wait_ns"] for r in rows if "culprit_tid" not in r and r["kind"] != "blocked"
    )
    # Threads that never ran again have slices without an end: a few of the last ones.
    for (victim, culprit), ns in true.items():
        assert abs(found[victim, culprit] - ns) <= 0.03 * sum(true.values()) / 9, (victim, culprit)
    # With one culprit for a wait, the others of its cgroup would be among `others`.
    filtered = Trace.open(make_trace(tmp_path, rows, meta={"filters": {"cpu": ["0"]}}))
    others = [
        sum(c.wait_ns for c in blame(t).cells if c.what == "others") for t in (trace, filtered)
    ]
    assert others[0] < 0.9 * others[1]


def test_a_slice_whose_end_is_not_known_ends_with_the_next_switch(tmp_path: Path) -> None:
    """A thread ran on another CPU, which nobody saw, before it was seen to leave one again."""
    row = {"cpu": 0, "kind": "runq_preempt"}
    by_group = {tid: "/h" if tid in (10, 11) else "/o" for tid in range(10, 14)}
    # When each got the CPU, and for how long it had waited.
    switched_in = ((10, 1000, 1), (11, 1300, 1), (12, 1500, 1), (10, 3000, 1000), (11, 3000, 1500))
    waits = [
        row | {"tid": tid, "pid": tid, "cgroup": by_group[tid], "end_ns": end, "wait_ns": wait}
        for tid, end, wait in switched_in
    ]
    culprit = {"culprit_tid": 10, "culprit_pid": 10, "culprit_cgroup": "/h", "culprit_ns": 300}
    victim = {"tid": 13, "pid": 13, "cgroup": "/v", "end_ns": 2000, "wait_ns": 1000}
    waits += [row | victim | culprit | {"culprit_others": 2}]
    cells = blame(Trace.open(make_trace(tmp_path, waits))).cells
    ran = {(c.what, c.culprit): c.wait_ns for c in cells if c.victim == "/v"}
    assert ran == {("task", "/h"): 500, ("others", None): 500}
