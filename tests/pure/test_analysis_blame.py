"""blame: every nanosecond in one cell, against a plain loop over the rows."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sltrace.analysis.blame import blame
from sltrace.analysis.latency import stat
from sltrace.analysis.selection import Selection
from sltrace.errors import UsageError
from sltrace.model import RUNQ_KINDS
from sltrace.trace.reader import Trace
from tests.support.traces import make_trace

KINDS = [*RUNQ_KINDS, "throttled", "blocked"]


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
@settings(max_examples=40, deadline=None)
def test_cells_are_those_of_a_loop_and_add_up_to_stat(rows: list[dict[str, Any]], by: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trace = Trace.open(make_trace(Path(folder), rows))
        whole, cut = blame(trace, by), blame(trace, by, limit=2)
        totals = stat(trace).totals
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
