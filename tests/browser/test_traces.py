"""The slowest traces and their timelines, against DuckDB on the same trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.report import HOSTILE, Report, waits

pytestmark = pytest.mark.browser

LOST = "sum(wait_ns) FILTER (WHERE kind <> 'blocked')"


def traced() -> list[dict[str, Any]]:
    """Forty traces, each a tenth of a second long."""
    rows = []
    for i, row in enumerate(waits(1200)):
        start = (i % 40) * 200_000_000
        end = start + row["end_ns"] % 100_000_000 + 100_000_000
        wait = min(row["wait_ns"], 100_000_000)
        rows.append(
            row | {"end_ns": end, "wait_ns": wait, "trace_id": f"{i % 40:032x}", "tid": 100 + i % 3}
        )
    return rows


def order(report: Report, where: str = "true") -> list[str]:
    found = report.trace.sql(
        f"SELECT trace_id FROM waits GROUP BY 1 HAVING {where} ORDER BY {LOST} DESC, 1"
    )
    return found.column(0).to_pylist()


def shown(report: Report) -> list[str]:
    return (report.page.locator("#traces").get_attribute("data-shown") or "").split()


def test_the_slowest_first_and_by_selection(open_report: Callable[..., Report]) -> None:
    report = open_report(traced(), shared=True)
    assert shown(report) == order(report)
    report.drag(0.3, 0.05, 0.5, 0.95)
    figures = report.figures
    inside = f"max(end_ns) > {figures['from']} AND min(end_ns - wait_ns) < {figures['to']}"
    assert 3 < len(shown(report)) < 40
    assert shown(report) == order(report, inside)


def test_one_as_a_timeline(open_report: Callable[..., Report]) -> None:
    report = open_report(traced(), shared=True)
    report.page.locator("#traces .trace-id").nth(2).click()
    trace_id = order(report)[2]
    assert f"trace={trace_id}" in report.page.url
    report.visit(report.page.url)
    drawn = report.page.locator("#traces rect.wait").evaluate_all(
        "bars => bars.map(b => [b.classList[1], +b.dataset.ns])"
    )
    expected = report.trace.sql(
        "SELECT kind, wait_ns FROM waits WHERE trace_id = ?", [trace_id]
    ).to_pylist()
    assert sorted(map(tuple, drawn)) == sorted((r["kind"], r["wait_ns"]) for r in expected)
    lanes = report.page.locator("#traces .timeline > text:not(.side)").all_text_contents()
    assert sorted(lanes) == ["web (100)", "web (101)", "web (102)"]
    report.page.locator("#traces details summary").click()
    # A text does not begin where the number before it ends.
    gaps = report.page.locator("#traces details td.number + td:not(.number)").evaluate_all(
        "cells => cells.map(c => parseFloat(getComputedStyle(c).paddingLeft))"
    )
    assert min(gaps) > 6
    for event, narrow in (("beforeprint", True), ("afterprint", False)):
        report.page.evaluate("event => { dispatchEvent(new Event(event)) }", event)
        width = report.page.locator("#traces .timeline").get_attribute("width")
        assert (int(width or 0) < 640) == narrow
    report.page.locator("#traces .trace-id[aria-pressed=true]").click()
    assert report.page.locator("#traces .timeline").count() == 0


def test_a_lane_has_its_whole_name_where_there_is_room(open_report: Callable[..., Report]) -> None:
    comm = "a-long-name-of-a-thread-(asyncio)"
    report = open_report([{"trace_id": f"{1:032x}", "comm": comm, "tid": 7}])
    report.page.locator("#traces .trace-id").click()
    drawn = report.page.locator("#traces .timeline > text:not(.side)").all_text_contents()
    assert drawn == [f"{comm} (7)"]


def test_hostile_ids_and_threads(open_report: Callable[..., Report]) -> None:
    rows = [
        {"trace_id": name, "comm": name, "culprit_comm": name, "wait_ns": 1000 + i}
        for i, name in enumerate(HOSTILE)
    ]
    report = open_report(rows)
    for i in range(len(HOSTILE)):
        report.page.locator("#traces .trace-id").nth(i).click()
        drawn = report.page.locator("#traces .timeline text:not(.side)").first
        name = drawn.inner_html()
        link = report.page.url.partition("#")[2]
        report.page.locator("#traces .trace-id").nth(i).click()
        assert drawn.count() == 0
        report.page.evaluate("hash => { location.hash = hash }", link)
        assert drawn.inner_html() == name
    report.visit(report.page.url)
    assert report.page.locator("#traces .timeline").count() == 1
    assert report.page.evaluate("window.pwned") is None
    assert not set(report.text("#traces")) & {"\u202e", "\u2066", "\x1b"}


def test_without_ids_there_is_no_panel(open_report: Callable[..., Report]) -> None:
    assert open_report().page.is_hidden("#traces-panel")


def test_of_two_selections(open_report: Callable[..., Report]) -> None:
    report = open_report(traced(), shared=True)
    report.show("axis=policy&cells=60-90,0-1&with=80-150,0-1")
    figures = report.figures
    width = (figures["to"] - figures["from"]) // 31
    start = figures["from"] - 60 * width
    windows = {"A": (60, 91), "B": (80, 151)}
    found = report.page.locator("#traces tbody tr").evaluate_all(
        "rows => rows.map(r => [...r.cells].map(c => c.textContent))"
    )
    for line in found:
        (row,) = report.trace.sql(
            "SELECT min(end_ns - wait_ns) AS first, max(end_ns) AS last FROM waits "
            "WHERE trace_id = ?",
            [line[0]],
        ).to_pylist()
        sides = [
            name
            for name, (low, high) in windows.items()
            if row["last"] > start + low * width and row["first"] < start + high * width
        ]
        assert line[-1] == "".join(sides)
    assert {line[-1] for line in found} >= {"A", "B"}
