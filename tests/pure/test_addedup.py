"""Adding up what a page cannot tell apart: the same sums, whether it is done or not."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from sltrace.analysis.addedup import added_up
from sltrace.analysis.cube import build_cube
from sltrace.trace.reader import Trace
from tests.support.traces import make_trace

KEYS = {"second": "end_ns // 1000000000", "cpu": "cpu"}
SUMS = ("n", "ns", "longest")
EACH = "(SELECT *, 1 AS n, wait_ns AS ns, wait_ns AS longest FROM waits)"
SAME = "SELECT second, cpu, sum(n), sum(ns), max(longest) FROM {} GROUP BY ALL ORDER BY ALL"


def trace_of(folder: Path, cpus: int) -> Trace:
    """1,000 waits in a second, on so many CPUs in turn."""
    waits = [{"end_ns": i * 1_000_000, "wait_ns": i * 10, "cpu": i % cpus} for i in range(1000)]
    return Trace.open(make_trace(folder, waits))


@pytest.mark.parametrize(("cpus", "rows"), [(4, 4), (1000, 1000)])
def test_the_sums_are_those_of_the_waits(tmp_path: Path, cpus: int, rows: int) -> None:
    trace = trace_of(tmp_path, cpus)
    run = trace.connection.sql
    with added_up(trace, "few", EACH, KEYS, SUMS) as source:
        assert run(f"SELECT count(*) FROM {source}").fetchone() == (rows,)
        assert (source == "few") == (rows < 1000)
        mine = run(SAME.format(source)).fetchall()
    each = f"(SELECT *, {KEYS['second']} AS second FROM {EACH})"
    assert mine == run(SAME.format(each)).fetchall()


def test_nothing_is_kept_after_it(tmp_path: Path) -> None:
    trace = trace_of(tmp_path, 2)
    with added_up(trace, "few", EACH, KEYS, SUMS) as source:
        assert source == "few"
    with pytest.raises(duckdb.CatalogException):
        trace.connection.sql("SELECT * FROM few")


def test_a_cube_is_the_same_whether_waits_were_added_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = trace_of(tmp_path, 4)
    added = build_cube(trace)
    monkeypatch.setattr("sltrace.analysis.addedup._MOST_DISTINCT", 0.0)
    each = build_cube(trace)
    for mine, theirs in ((added.rows, each.rows), (added.blame.rows, each.blame.rows)):
        assert len(mine["t"])
        assert {c: v.tolist() for c, v in mine.items()} == {
            c: v.tolist() for c, v in theirs.items()
        }
