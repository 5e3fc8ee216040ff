"""Frames of the flame graph that are too narrow to draw, and those that a search finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.report import Report

pytestmark = pytest.mark.browser


def of_many(count: int) -> list[dict[str, Any]]:
    return [{"cgroup": f"/svc-{i:03}", "wait_ns": 1000 + i} for i in range(count)]


def total(rows: list[dict[str, Any]]) -> int:
    return sum(row["wait_ns"] for row in rows)


def status(report: Report) -> str:
    return report.page.locator("#flame-status").text_content() or ""


def test_frames_too_narrow_to_draw_are_one(open_report: Callable[..., Report]) -> None:
    rows = of_many(900)
    report = open_report(rows)
    both = {"all": total(rows), "900 narrower frames": total(rows)}
    assert report.frames == both
    together = report.page.locator("#flame g.together")
    assert together.bounding_box() is not None
    report.page.locator("#flame").focus()
    report.page.keyboard.press("ArrowDown")
    assert status(report).startswith("900 narrower frames, ")
    assert status(report).endswith(", the table has them all")
    # Each would be as narrow as before.
    report.page.keyboard.press("Enter")
    together.click()
    assert report.frames == both
    assert report.page.is_disabled("#unzoom")
    report.page.locator("#flame-table summary").click()
    report.page.wait_for_selector("#flame-table tr")
    report.page.locator("#flame-table .more").click()
    table = report.page.locator("#flame-table table").text_content() or ""
    assert all(row["cgroup"] in table for row in rows)


def test_narrow_frames_are_told_apart_where_there_is_room(
    open_report: Callable[..., Report],
) -> None:
    narrow = of_many(60)
    report = open_report([*narrow, {"cgroup": "/wide", "wait_ns": 9 * total(narrow)}])
    assert report.page.locator("#flame g.together").count() == 1
    report.page.locator("#flame").focus()
    for key in ("ArrowDown", "ArrowRight"):
        report.page.keyboard.press(key)
    assert status(report).startswith("60 narrower frames, ")
    report.page.keyboard.press("Enter")
    values = report.page.locator("#flame g.frame").evaluate_all(
        "all => all.map(g => +g.dataset.value)"
    )
    # Above, the frame of all these, and each with its thread, kind and policy below.
    assert values[1] == total(narrow)
    assert {row["wait_ns"] for row in narrow} <= set(values)
    assert not report.page.is_disabled("#unzoom")
    # It is no frame of the next selection, but what it is in is.
    report.page.select_option("#weight", "count")
    assert report.page.is_disabled("#unzoom")
    assert report.frames["all"] == 61
    assert report.page.locator("#flame g.together").count() == 0


def test_what_a_search_does_not_count_is_not_marked(open_report: Callable[..., Report]) -> None:
    report = open_report([*of_many(200), {"cgroup": "/all", "wait_ns": 500_000}])
    found = report.page.locator("#flame g.match")
    report.page.fill("#search", "all")
    assert found.all_text_contents() == ["/all"]
    assert "500 µs" in status(report)
    report.page.fill("#search", "narrower frames")
    assert found.count() == 0
    assert status(report).startswith("Search: 0.0 %")
