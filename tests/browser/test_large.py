"""A trace too large for its page: it is drawn finer than it can be selected."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.report import Report, waits

pytestmark = pytest.mark.browser


def drawn(report: Report) -> dict[str, Any]:
    found: dict[str, Any] = report.page.evaluate(
        "() => { const {z, x0, dx, y0, dy} = document.getElementById('heatmap').data[0];"
        " return {rows: z.length, columns: z[0].length, x0, dx, y0, dy,"
        " sum: z.flat().reduce((a, v) => a + v, 0), most: Math.max(...z.flat()) } }"
    )
    return found


def test_drawn_finer_than_selected(open_report: Callable[..., Report]) -> None:
    report = open_report([row | {"cpu": i % 7} for i, row in enumerate(waits())], max_rows=600)
    report.page.select_option("#scale", "linear")
    whole = report.by_duckdb()
    longest = report.trace.sql("SELECT max(wait_ns) AS m FROM waits WHERE kind <> 'blocked'")
    coarse = report.page.evaluate(
        "() => { const d = JSON.parse(document.getElementById('data').textContent);"
        " return [d.bins, d.merged.t, d.merged.b, d.cpu_group] }"
    )
    bins, times, buckets, cpus = coarse
    assert times > 1
    for axis, rows in (("latency", buckets), ("cpu", min(7, cpus)), ("cgroup", 1), ("kind", 1)):
        report.page.select_option("#axis", axis)
        report.page.select_option("#measure", "time")
        found = drawn(report)
        assert found["columns"] == bins * times
        assert found["dx"] * found["columns"] == pytest.approx(found["x0"] * 2 * found["columns"])
        assert found["dy"] == pytest.approx(1 / rows)
        assert found["y0"] == pytest.approx(-0.5 + 0.5 / rows)
        assert found["sum"] == whole[1]
        report.page.select_option("#measure", "max")
        assert drawn(report)["most"] == longest["m"][0].as_py()
    report.page.select_option("#axis", "latency")
    report.drag(0.3, 0.2, 0.7, 0.6)
    figures = report.figures
    assert (figures["count"], figures["ns"]) == report.by_duckdb(report.latency())
    assert figures["count"] > 100
    # A single cell, by a click: one of the coarse ones.
    report.page.mouse.click(*centre(report))
    figures = report.figures
    assert (figures["count"], figures["ns"]) == report.by_duckdb(report.latency())


def centre(report: Report) -> tuple[float, float]:
    box = report.page.locator("#heatmap .nsewdrag").bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
