"""Two selections: the flame graph is their difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.report import FRAMES, STACKS, UNITS, Report, waits

pytestmark = pytest.mark.browser


def both(report: Report) -> dict[str, tuple[int, int]]:
    found = report.page.locator("#flame g.frame").evaluate_all(
        "all => all.map(g => [g.textContent, +g.dataset.value, +g.dataset.other])"
    )
    return {name: (a, b) for name, a, b in found}


def inside(report: Report, x0: int, x1: int, y0: int, y1: int) -> str:
    """SQL for the cells x0 to x1, y0 to y1 of the heatmap by latency."""
    data: dict[str, Any] = report.page.evaluate(
        "() => { const d = JSON.parse(document.getElementById('data').textContent);"
        " return {start: d.start_ns, bin: d.bin_ns, low: d.low_ns} }"
    )
    first = report.page.evaluate(
        "() => Math.min(...JSON.parse(document.getElementById('figures').dataset.rows))"
    )
    # Without a selection the rows begin at the axis's first.
    base = data["low"].index(first)
    start, width = int(data["start"]), data["bin"]
    return (
        f"end_ns >= {start + x0 * width} AND end_ns < {start + (x1 + 1) * width} AND "
        f"wait_ns >= {data['low'][base + y0]} AND wait_ns < {data['low'][base + y1 + 1]}"
    )


def number(text: str) -> float:
    value, unit = text.split()
    return float(value.replace(",", "")) * ({"%": 1} | UNITS)[unit]


def table(report: Report, which: str, names: int) -> dict[tuple[str, ...], list[float]]:
    """A's and B's value by the names in the first columns."""
    lines = report.page.locator(f"{which} tbody tr").evaluate_all(
        "rows => rows.map(r => [...r.cells].map(c => c.textContent))"
    )
    return {tuple(line[:names]): [number(v) for v in line[names : names + 2]] for line in lines}


def shares(
    report: Report, column: str, sides: tuple[str, str], whole: list[int]
) -> dict[tuple[str, ...], list[float]]:
    """Percentages of the time lost on both sides."""
    sums: dict[tuple[str, ...], list[float]] = {}
    for i, where in enumerate(sides):
        for row in report.trace.sql(
            f"SELECT {column} AS k, sum(wait_ns)::BIGINT AS ns FROM waits "
            f"WHERE kind <> 'blocked' AND {where} GROUP BY 1"
        ).to_pylist():
            sums.setdefault((row["k"],), [0.0, 0.0])[i] = 100 * row["ns"] / whole[i]
    return sums


def summed(report: Report, where: str) -> tuple[int, int]:
    (row,) = report.trace.sql(
        "SELECT count(*) AS n, coalesce(sum(wait_ns), 0)::BIGINT AS ns FROM waits "
        f"WHERE kind <> 'blocked' AND {where}"
    ).to_pylist()
    return row["n"], row["ns"]


def test_a_second_rectangle(open_report: Callable[..., Report]) -> None:
    report = open_report(stacks=STACKS, frames=FRAMES)
    a = inside(report, 30, 90, 40, 120)
    b = inside(report, 150, 220, 20, 140)
    report.show("cells=30-90,40-120&with=150-220,20-140")
    for name, stack in (("futex_wait", 1), ("pipe_read", 2)):
        expected = [summed(report, f"{w} AND stack_kernel = {stack}")[1] for w in (a, b)]
        assert both(report)[name] == tuple(expected)
        assert min(expected) > 0
    assert both(report)["all"] == (summed(report, a)[1], summed(report, b)[1])
    lines = report.page.locator("#figures [data-name=waits] b").all_inner_texts()
    assert [int(n.replace(",", "")) for n in lines] == [summed(report, a)[0], summed(report, b)[0]]
    assert "B against A" in report.text("#flame-title")
    # Tables and culprits by share, then by time per second, as the flame graph.
    whole = [summed(report, w)[1] for w in (a, b)]
    expected_shares = shares(report, "cgroup", (a, b), whole)
    shown = table(report, "#tables [data-by=cgroup]", 1)
    assert set(shown) == set(expected_shares)
    for cgroup, values in expected_shares.items():
        assert shown[cgroup] == pytest.approx(values, abs=0.051)
    blame = table(report, "#blame-view", 2)
    quotas = {f"quota of /service-{i}" for i in range(3)}
    assert {culprit for _, culprit in blame} == {"unknown", "not known"} | quotas
    by_victim: dict[str, list[float]] = {}
    for (victim, _), values in blame.items():
        sums = by_victim.setdefault(victim, [0.0, 0.0])
        sums[:] = [x + y for x, y in zip(sums, values, strict=True)]
    for (victim,), values in expected_shares.items():
        assert by_victim[victim] == pytest.approx(values, abs=0.3)
    report.page.select_option("#compare", "rate")
    seconds = [(90 - 30 + 1) / 30, (220 - 150 + 1) / 30]
    changed = report.page.locator("#figures [data-change='time lost / s'] b").inner_text()
    ratio = whole[1] / seconds[1] / (whole[0] / seconds[0])
    assert float(changed.removeprefix("× ")) == pytest.approx(ratio, rel=0.01)
    for (cgroup,), values in table(report, "#tables [data-by=cgroup]", 1).items():
        per_second = [
            summed(report, f"{w} AND cgroup = '{cgroup}'")[1] / s
            for w, s in zip((a, b), seconds, strict=True)
        ]
        assert values == pytest.approx(per_second, rel=0.006)


def test_by_mouse_and_in_the_address(open_report: Callable[..., Report]) -> None:
    report = open_report(stacks=STACKS, frames=FRAMES)
    assert report.page.is_disabled("#second")
    report.drag(0.1, 0.2, 0.3, 0.8)
    first = report.figures
    report.page.click("#second")
    assert report.page.is_visible("#target")
    report.drag(0.6, 0.2, 0.7, 0.8)
    assert report.figures == first
    shown, url = both(report), report.page.url
    assert "with=" in url
    report.visit(url)
    assert both(report) == shown
    report.page.click("#clear")
    assert report.page.url.partition("#")[2] == ""
    assert report.page.locator("#flame g.both").count() == 0


def test_by_keyboard(open_report: Callable[..., Report]) -> None:
    report = open_report(stacks=STACKS, frames=FRAMES)
    report.page.focus("#heatmap")
    for key in ["b", "ArrowLeft", *["Control+Shift+ArrowLeft"] * 3, *["Control+Shift+ArrowUp"] * 3]:
        report.page.keyboard.press(key)
    assert "with=" not in report.page.url
    for key in ["b", "ArrowLeft", *["Control+ArrowRight"] * 9, *["Control+Shift+ArrowRight"] * 5]:
        report.page.keyboard.press(key)
    for key in ["Control+Shift+ArrowDown"] * 6:
        report.page.keyboard.press(key)
    assert "with=" in report.page.url
    a, b = both(report)["all"]
    assert a == report.by_duckdb(report.latency())[1]
    assert 0 < b != a
    report.page.keyboard.press("Escape")
    assert "cells=" in report.page.url
    assert "with=" not in report.page.url
    assert report.text("#heat-status") == "The second selection is cleared."
    for key in ("b", "Escape"):
        report.page.keyboard.press(key)
    assert "cells=" in report.page.url
    assert report.text("#heat-status") == "Now choosing selection A."
    assert report.page.is_hidden("#target")
    report.page.keyboard.press("Escape")
    assert "cells=" not in report.page.url
    assert report.text("#heat-status") == "The selection is cleared."


def test_what_is_only_in_one_of_them_is_not_cut(open_report: Callable[..., Report]) -> None:
    report = open_report(waits(200))
    report.show("axis=kind&cells=0-299,0-0&with=0-299,1-1")
    changes = report.page.locator("#tables .bar-cell:text('100.0 points')")
    assert changes.count() >= 2
    assert changes.evaluate_all("all => all.every(n => n.scrollWidth <= n.clientWidth)")


def test_a_selection_against_itself_is_no_difference(open_report: Callable[..., Report]) -> None:
    report = open_report(stacks=STACKS, frames=FRAMES)
    report.show("cells=30-200,20-140&with=30-200,20-140")
    assert all(a == b for a, b in both(report).values())
    fills = report.page.locator("#flame g.both rect").evaluate_all(
        "all => all.map(r => r.style.fill)"
    )
    assert len(fills) == len(both(report))
    assert all(" 0%" in fill for fill in fills)
