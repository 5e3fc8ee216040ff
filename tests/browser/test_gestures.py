"""Gestures that cross what the page does by itself, and many of them at once."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.browser.report import Report, waits
from tests.support.traces import SECOND

pytestmark = pytest.mark.browser

WIDTH_NS = 10 * SECOND


def place(report: Report) -> Callable[[float, float], tuple[float, float]]:
    """Where a point of the plot is, in shares of its width and height."""
    box = report.page.locator("#heatmap .nsewdrag").bounding_box()
    assert box
    return lambda x, y: (box["x"] + x * box["width"], box["y"] + y * box["height"])


def assert_chosen(report: Report, left: float, right: float) -> None:
    """This part of the width is selected in the end, as far as pixels and cells tell."""
    ends = pytest.approx([left * WIDTH_NS, right * WIDTH_NS], abs=0.006 * WIDTH_NS)
    report.until(lambda: [report.figures["from"], report.figures["to"]] == ends)
    figures = report.figures
    assert (figures["count"], figures["ns"]) == report.by_duckdb(report.latency())


def test_drags_right_after_another(open_report: Callable[..., Report]) -> None:
    """Each begins while the one before is still being drawn."""
    report = open_report()
    at, mouse = place(report), report.page.mouse
    for i in range(8):
        left = 0.1 + 0.08 * i
        mouse.move(*at(left, 0.2))
        mouse.down()
        mouse.move(*at(left + 0.1, 0.4), steps=3)
        mouse.move(*at(left + 0.2, 0.6), steps=3)
        mouse.up()
    assert_chosen(report, left, left + 0.2)


@pytest.mark.parametrize("dragging", ["zoom", "select"])
def test_nothing_is_drawn_while_a_button_is_down(
    open_report: Callable[..., Report], dragging: str
) -> None:
    report = open_report(waits(300))
    at, mouse = place(report), report.page.mouse
    report.page.locator(f"#heatmap .modebar-btn[data-val={dragging}]").click()
    mouse.move(*at(0.2, 0.2))
    mouse.down()
    mouse.move(*at(0.25, 0.3), steps=3)
    report.page.evaluate("location.hash = 'measure=count'")
    report.page.evaluate("document.getElementById('heatmap').style.width = '500px'")
    report.settle()
    report.page.wait_for_timeout(100)
    drawn = "() => { const {layout} = document.getElementById('heatmap'); return layout.width }"
    assert report.page.evaluate(drawn) > 500
    mouse.move(*at(0.3, 0.6), steps=3)
    mouse.up()
    report.until(lambda: report.page.evaluate(drawn) == 500)
    if dragging == "select":
        assert_chosen(report, 0.2, 0.3)


@pytest.mark.parametrize("touch", [False, True])
def test_rows_that_become_others_during_a_drag_are_not_selected(
    open_report: Callable[..., Report], touch: bool
) -> None:
    """Nor are they drawn before it is told what was dragged over."""
    report = open_report(waits(300))

    def other_rows() -> None:
        report.show("axis=kind")

    report.drag_meanwhile(other_rows, touch)
    drawn = "document.getElementById('heatmap').layout.yaxis.ticktext.includes('woken')"
    report.until(lambda: report.page.evaluate(drawn))
    assert "cells=" not in report.page.url
    assert report.figures["count"] == report.by_duckdb()[0]
    report.drag(0.2, 0.2, 0.3, 0.6)


def test_a_page_that_is_hidden_for_a_while(open_report: Callable[..., Report]) -> None:
    """As one in a frame of another page, behind a tab."""
    report = open_report(waits(300))
    wide = report.page.evaluate("document.getElementById('heatmap').layout.width")
    for shown in ("none", ""):
        report.page.evaluate("shown => { document.body.style.display = shown }", shown)
        report.settle()
        report.page.wait_for_timeout(100)
    assert report.page.evaluate("document.getElementById('heatmap').layout.width") == wide


def test_what_was_selected_by_keys_before_begins_nothing_after(
    open_report: Callable[..., Report],
) -> None:
    """Other rows may be fewer, and a mouse leaves the cell that the keys were at."""
    report = open_report(waits(300))
    report.page.focus("#heatmap")
    for key in ("Enter", "Shift+ArrowLeft", "Shift+ArrowUp"):
        report.page.keyboard.press(key)
    report.page.select_option("#axis", "kind")
    report.page.focus("#heatmap")
    report.page.keyboard.press("Shift+ArrowLeft")
    report.until(lambda: "cells=" in report.page.url)
    x0, x1, y0, y1 = map(
        int, re.findall(r"cells=(\d+)-(\d+)(?:,|%2C)(\d+)-(\d+)", report.page.url)[0]
    )
    assert (x0, y0) == (x1, y1)
    report.drag(0.1, 0.1, 0.2, 0.9)
    report.page.focus("#heatmap")
    before = report.figures["from"]
    report.page.keyboard.press("ArrowLeft")
    report.page.keyboard.press("Enter")
    report.until(lambda: report.figures["from"] != before)
    assert abs(report.figures["from"] - before) < 3 * SECOND


def test_the_address_follows_where_the_browser_refuses_it_for_a_while(
    open_report: Callable[..., Report],
) -> None:
    report = open_report(waits(300))
    report.page.focus("#heatmap")
    # As Safari does after 100 changes in 30 s.
    report.page.evaluate(
        """() => {
            window.replace = history.replaceState;
            history.replaceState = () => { throw new DOMException("too often", "SecurityError"); };
        }"""
    )
    for key in ("Enter", "Shift+ArrowLeft", "Shift+ArrowUp"):
        report.page.keyboard.press(key)
    figures = report.figures
    assert (figures["count"], figures["ns"]) == report.by_duckdb(report.latency())
    assert figures["count"] < 300
    assert "cells=" not in report.page.url
    report.page.evaluate("() => { history.replaceState = window.replace }")
    report.until(lambda: "cells=" in report.page.url)
    report.visit(report.page.url)
    assert report.figures == figures
