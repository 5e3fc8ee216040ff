"""Scales, axes, blame and the flame graph's options, against DuckDB on the same trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sltrace.analysis import cubeblame
from sltrace.analysis.blame import blame
from sltrace.analysis.selection import Selection
from tests.browser.report import FRAMES, STACKS, Report, waits
from tests.pure.test_analysis_blame import one_cpu

pytestmark = pytest.mark.browser

TRACED = [
    row | {"comm": f"worker-{i % 3}", "trace_id": f"{i:031x}{i % 16:x}" if i % 2 else None}
    for i, row in enumerate(waits(2000))
]


def cells(report: Report) -> list[list[float | None]]:
    """What the heatmap's cells are coloured by."""
    found: list[list[float | None]] = report.page.evaluate(
        "() => document.getElementById('heatmap').data[0].z"
    )
    return found


def largest(report: Report) -> float:
    return max(v for row in cells(report) for v in row if v is not None)


def test_the_longest_wait_survives_whatever_is_merged(open_report: Callable[..., Report]) -> None:
    report = open_report(TRACED, shared=True)
    longest = report.trace.sql(
        "SELECT max(wait_ns) AS m FROM waits WHERE kind <> 'blocked'"
    ).to_pylist()[0]["m"]
    report.page.select_option("#measure", "max")
    report.page.select_option("#scale", "linear")
    for axis in ("latency", "cpu", "cgroup", "comm", "policy", "kind", "bucket"):
        report.page.select_option("#axis", axis)
        assert largest(report) == longest, axis


def test_ranks_are_shares_of_the_cells(open_report: Callable[..., Report]) -> None:
    report = open_report()
    report.page.select_option("#axis", "kind")
    report.page.select_option("#scale", "linear")
    values = sorted(v for row in cells(report) for v in row if v is not None)
    report.page.select_option("#scale", "rank")
    ranks = sorted(v for row in cells(report) for v in row if v is not None)
    assert len(ranks) == len(values)
    below = [sum(1 for w in values if w <= v) / len(values) for v in values]
    assert ranks == pytest.approx(below)


def test_threads_and_traces_as_rows(open_report: Callable[..., Report]) -> None:
    report = open_report(TRACED, shared=True)
    bucket = (
        "CASE WHEN trace_id IS NULL THEN 'no trace id' ELSE "
        "'ids ending in ' || right(trace_id, 1) END"
    )
    for axis, sql in (("comm", "comm"), ("bucket", bucket)):
        report.page.select_option("#axis", axis)
        # A drag of a few pixels' height would be one over all rows.
        report.drag(0.3, 0.02, 0.8, 0.12)
        figures = report.figures
        names = ", ".join(f"'{name}'" for name in figures["rows"])
        assert 1 <= len(figures["rows"]) <= 3
        expected = report.by_duckdb(f"{sql} IN ({names})")
        assert expected[0] > 10
        assert (figures["count"], figures["ns"]) == expected
        report.page.click("#clear")


def test_cpus_are_grouped_by_node(open_report: Callable[..., Report]) -> None:
    report = open_report(waits(300), meta={"nodes": {"0": [1], "1": [0]}})
    report.page.select_option("#axis", "cpu")
    labels = report.page.locator("#heatmap .ytick text").all_text_contents()
    # From the bottom up.
    assert labels == ["node 1, CPU 0", "node 0, CPU 1"][:: 1 if "1" in labels[0][:6] else -1]
    assert report.page.locator("#heatmap .shapelayer path").count() == 1


def blamed(report: Report, victim: str, culprit: str, where: str) -> dict[tuple[str, str], int]:
    """The definition of docs/measured.md in one query: every nanosecond has one culprit."""
    rows = report.trace.sql(
        f"""
        WITH w AS (SELECT *, CASE WHEN kind = 'throttled' OR culprit_tid IS NULL THEN wait_ns
            ELSE least(culprit_ns, wait_ns) END AS held
          FROM waits WHERE kind IN ('runq_wakeup', 'runq_preempt', 'throttled') AND {where})
        SELECT v, c, sum(ns)::BIGINT AS ns FROM (
          SELECT {victim} AS v, CASE WHEN kind = 'throttled' THEN 'quota of ' || cgroup
            WHEN culprit_tid IS NULL THEN 'not known' WHEN culprit_tid = 0 THEN 'idle CPU'
            ELSE {culprit} END AS c, held AS ns FROM w
          UNION ALL SELECT {victim}, CASE WHEN culprit_others > 0 AND flags & 8 = 0
            THEN 'other tasks' ELSE 'not known' END, wait_ns - held FROM w)
        GROUP BY ALL HAVING sum(ns) > 0
        """
    ).to_pylist()
    return {(row["v"], row["c"]): row["ns"] for row in rows}


def matrix(report: Report) -> dict[tuple[str, str], int]:
    heads, *lines = report.page.locator("#blame-view tr").evaluate_all(
        "rows => rows.map(r => [...r.cells].map(c => c.dataset.ns ||"
        " c.querySelector('[title]')?.title || c.innerText))"
    )
    return {
        (line[0], culprit): int(ns)
        for line in lines[:-1]
        for culprit, ns in zip(heads[1:-1], line[1:-1], strict=True)
        if int(ns)
    }


def culpable() -> list[dict[str, Any]]:
    rows = []
    for i, row in enumerate(TRACED):
        ran = {"culprit_tid": (7, 0, None)[i % 7 % 3], "culprit_others": i % 2}
        ran |= {"culprit_ns": row["wait_ns"] * (i % 5) // 4, "flags": 8 if i % 11 == 0 else 0}
        ran |= {"culprit_cgroup": f"/other-{i % 2}", "culprit_pid": 7 if i % 7 % 3 == 0 else 0}
        if row["kind"] == "throttled":
            ran |= {"culprit_tid": None, "culprit_cgroup": row["cgroup"]}
        rows.append(row | ran)
    return rows


def test_blame_is_every_nanosecond_once(open_report: Callable[..., Report]) -> None:
    report = open_report(culpable(), shared=True)
    for by in ("cgroup", "comm"):
        report.page.select_option("#blame", by)
        assert matrix(report) == blamed(report, by, f"culprit_{by}", "true")
        report.drag(0.3, 0.1, 0.7, 0.5)
        figures = report.figures
        where = f"end_ns >= {figures['from']} AND end_ns < {figures['to']} AND {report.latency()}"
        expected = blamed(report, by, f"culprit_{by}", where)
        assert len(expected) > 5
        assert matrix(report) == expected
        total = report.page.locator("#blame-view").get_attribute("data-total")
        assert int(total or 0) == figures["ns"]
        assert report.page.is_hidden("#blame-note")
        report.page.click("#clear")


def test_blame_by_cgroup_is_what_the_command_says(open_report: Callable[..., Report]) -> None:
    rows, _ = one_cpu(5)
    for row in rows:
        row |= {n: row[n] * 20_000 for n in ("end_ns", "wait_ns", "culprit_ns") if n in row}
    report = open_report(rows)
    for cells in ("", "axis=policy&cells=30-60,0-0"):
        report.show(cells)
        figures = report.figures
        chosen = Selection(start_ns=figures["from"], end_ns=figures["to"])
        named = {"others": "other tasks", "unknown": "not known"}
        expected = {
            (str(c.victim), str(c.culprit or named[c.what])): c.wait_ns
            for c in blame(report.trace, selection=chosen).cells
            if c.wait_ns
        }
        assert matrix(report) == expected
        assert len(expected) > 8


def test_blame_by_process(open_report: Callable[..., Report]) -> None:
    tasks = [{"pid": 7, "tid": 7, "comm": "hog", "from_ns": 0, "cmdline": "hog"}]
    rows = [r | {"pid": 5, "kind": "runq_preempt"} for r in culpable()]
    report = open_report(rows, tasks=tasks)
    report.page.select_option("#blame", "process")
    by_name = {culprit for _, culprit in matrix(report)}
    assert "hog (7)" in by_name
    assert sum(matrix(report).values()) == report.figures["ns"]


def test_threads_that_are_called_as_the_page_calls_something(
    open_report: Callable[..., Report],
) -> None:
    ran = {"wait_ns": 1000, "culprit_others": 1, "culprit_stack": 1}
    rows = [
        ran | {"culprit_tid": tid, "culprit_pid": tid, "culprit_comm": comm, "culprit_ns": ns}
        for tid, comm, ns in (
            (0, "idle", 1000),
            (7, "idle CPU", 900),
            (8, "other tasks", 800),
            (9, "other tasks", 800),
        )
    ]
    report = open_report(rows, stacks=STACKS, frames=FRAMES)
    report.show("blame=comm")
    heads = report.page.locator("#blame-view thead .name").evaluate_all(
        "all => all.map(n => [n.textContent, n.classList.contains('own')])"
    )
    sums = report.page.locator("#blame-view tbody tr:last-child td").all_text_contents()
    named = {(name, own): ns for (name, own), ns in zip(heads, sums, strict=False)}
    assert named == {
        ("idle CPU", True): "1.00 µs",
        ("idle CPU", False): "900 ns",
        ("other tasks", True): "500 ns",
        ("other tasks", False): "1.60 µs",
    }
    # Two processes of one name are one frame.
    report.show("stack=culprit&split=comm")
    assert (report.frames["other tasks"], report.frames["other…asks"]) == (1600, 500)


def test_all_others_are_one_row(
    open_report: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the page has by name and those that it has together."""
    monkeypatch.setattr(cubeblame, "_MAX_TASKS", 12)
    report = open_report([{"cgroup": f"/c{i:02}", "wait_ns": 90 - i} for i in range(30)])
    victims = report.page.locator("#blame-view tbody .name").all_text_contents()
    assert victims == [*(f"/c{i:02}" for i in range(8)), "all others"]
    assert sum(matrix(report).values()) == report.figures["ns"]


def test_blame_says_what_it_does_not_know(open_report: Callable[..., Report]) -> None:
    report = open_report(culpable(), shared=True)
    report.page.select_option("#axis", "policy")
    report.drag(0.3, 0.02, 0.7, 0.1)
    assert "not kept by scheduling policy" in report.text("#blame-note")
    figures = report.figures
    where = f"end_ns >= {figures['from']} AND end_ns < {figures['to']}"
    assert matrix(report) == blamed(report, "cgroup", "culprit_cgroup", where)


def test_innermost_frames_first(open_report: Callable[..., Report]) -> None:
    report = open_report(stacks=STACKS, frames=FRAMES)
    total = report.frames["all"]
    report.page.locator("#flame-table summary").click()
    report.page.wait_for_selector("#flame-table tr")
    cells = "rows => rows.map(row => [...row.cells].map(c => c.textContent))"
    table = report.page.locator("#flame-table tr").evaluate_all(cells)
    report.page.select_option("#order", "leaf")
    placed = report.page.locator("#flame g.frame").evaluate_all(
        "all => all.map(g => [g.textContent, +g.firstChild.getAttribute('y')])"
    )
    height = dict(placed)
    assert height["futex_wait"] == height["pipe_read"] < height["do_syscall"]
    assert [name for name, _ in placed].count("do_syscall") == 2
    assert report.frames["all"] == total
    # Whichever way they are drawn, stacks end in the same functions.
    assert report.page.locator("#flame-table tr").evaluate_all(cells) == table


def test_split(open_report: Callable[..., Report]) -> None:
    report = open_report(TRACED, stacks=STACKS, frames=FRAMES)
    whole = report.frames["all"]
    for split, name, value in (("comm", "worker-1", "worker-1"), ("kind", "woken", "runq_wakeup")):
        report.page.select_option("#split", split)
        frames = report.frames
        assert frames["all"] == whole
        assert frames[name] == report.by_duckdb(f"{split} = '{value}'")[1]


def test_languages_are_told_apart(open_report: Callable[..., Report]) -> None:
    stacks = [
        {"stack_id": 9, "space": "go", "pid": 100, "addresses": [0x50]},
        {"stack_id": 10, "space": "python", "pid": 101, "addresses": [0x60]},
    ]
    frames = [
        {"space": "go", "pid": 100, "address": 0x50, "name": "main.serve", "language": "go"},
        {"space": "python", "pid": 101, "address": 0x60, "name": "app.view", "language": "python"},
    ]
    rows = [{"stack_runtime": 9}, {"stack_runtime": 10, "pid": 101}]
    report = open_report(rows, stacks=stacks, frames=frames)
    assert report.page.locator("#flame g.go").text_content() == "main.serve"
    assert report.page.locator("#flame g.python").text_content() == "app.view"


def test_what_ran_meanwhile(open_report: Callable[..., Report]) -> None:
    names = {1: "app.serve", 2: "json.dumps", 3: "re.sub"}
    frames = [
        {"space": "python", "pid": 100, "address": a, "name": n, "language": "python"}
        for a, n in names.items()
    ]
    stacks = [
        {"stack_id": 90 + leaf, "space": "python", "pid": 100, "addresses": [leaf, 1]}
        for leaf in (2, 3)
    ]
    rows = [
        row
        | {"kind": "gil", "culprit_stack": 92 + i % 2, "culprit_ns": row["wait_ns"] * (i % 4) // 3}
        for i, row in enumerate(waits(600))
    ]
    report = open_report(rows, stacks=stacks, frames=frames)
    assert "--only kind=gil" in report.text("#blame-note")
    report.page.select_option("#stack", "culprit")

    def shares(where: str) -> dict[str, int]:
        found = report.trace.sql(
            "SELECT culprit_stack AS s, sum(least(culprit_ns, wait_ns))::BIGINT AS held, "
            f"sum(wait_ns)::BIGINT AS waited FROM waits WHERE {where} GROUP BY 1"
        ).to_pylist()
        held = {names[row["s"] - 90]: row["held"] for row in found}
        waited = sum(row["waited"] for row in found)
        served = sum(held.values())
        return {
            "all": waited, "app.serve": served, "[no stack recorded]": waited - served, **held
        }  # fmt: skip

    assert report.frames == shares("true")
    report.drag(0.3, 0.1, 0.7, 0.5)
    figures = report.figures
    inside = f"end_ns >= {figures['from']} AND end_ns < {figures['to']} AND {report.latency()}"
    assert report.frames == shares(inside)
    assert report.page.is_disabled("#weight")
    assert "stack=culprit" in report.page.url
