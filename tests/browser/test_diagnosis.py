"""The diagnosis on the page leads to the waits it is about."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser.report import HOSTILE, Report
from tests.support.traces import SECOND

pytestmark = pytest.mark.browser


def starved(cgroup: str) -> list[dict[str, Any]]:
    """Two seconds of ten lost to one neighbour, and 300 waits of others that are nothing."""
    culprit = {
        "culprit_tid": 7,
        "culprit_pid": 7,
        "culprit_comm": "hog",
        "culprit_cgroup": "/noisy",
    }
    long = {"wait_ns": 20_000_000, "cgroup": cgroup, "culprit_ns": 19_000_000, **culprit}
    return [long | {"end_ns": (i + 1) * SECOND // 10} for i in range(100)] + [
        {"wait_ns": 1000, "end_ns": i * SECOND // 30, "cgroup": "/calm"} for i in range(300)
    ]


@pytest.mark.parametrize("cgroup", ["/victim", HOSTILE[0], HOSTILE[4]])
def test_a_finding_shows_its_waits(open_report: Callable[..., Report], cgroup: str) -> None:
    report = open_report(starved(cgroup))
    finding = report.page.locator(".finding").first
    assert "2.00 s" in finding.inner_text()
    assert report.page.is_hidden("#diagnosis-note")
    assert not finding.locator("p").is_visible()
    finding.locator("summary").click()
    assert "cpu.weight" in finding.locator("p").inner_text()
    finding.locator(".show").click()
    figures = report.figures
    assert figures["rows"] == [cgroup]
    assert (figures["count"], figures["ns"]) == (100, 2 * SECOND)
    assert report.page.evaluate("window.pwned") is None
    assert not set(report.text("#diagnosis")) & {"\u202e", "\u2066", "\x1b"}


def said_and_shown(report: Report, title: str) -> tuple[str, str]:
    """What the button of the first finding that is called so says, and where it leads."""
    more = report.page.locator("#more-findings")
    if more.is_visible():
        more.click()
    finding = report.page.locator(".finding", has_text=title).first
    said = finding.locator(".show").inner_text()
    finding.locator(".show").click()
    return said, report.page.url.partition("#")[2]


def test_a_cgroup_without_a_row_shows_all_waits_of_the_kind(
    open_report: Callable[..., Report],
) -> None:
    """A page names 60 rows; the others are one."""
    many = [
        {"wait_ns": 9_000_000, "cgroup": f"/busy-{i % 70}", "end_ns": i * SECOND // 1000}
        for i in range(7000)
    ]
    throttled = {"kind": "throttled", "wait_ns": 60_000_000, "cgroup": "/small"}
    rows = [*many, *(throttled | {"end_ns": (i + 1) * SECOND} for i in range(9))]
    rows += [throttled | {"cgroup": f"/busy-{i}", "wait_ns": 5_000_000} for i in range(9)]
    report = open_report(rows)
    assert said_and_shown(report, "CPU quota: threads of /small")[0] == "Show all waits: CPU quota"
    assert report.figures["count"] == 18
    assert report.figures["ns"] == 9 * 65_000_000


def test_a_button_says_so_where_it_shows_more_than_the_finding(
    open_report: Callable[..., Report],
) -> None:
    blocked = {"kind": "blocked", "wait_ns": 30_000_000, "cgroup": "/db"}
    disk = blocked | {"state": "D", "waker_context": "hardirq"}
    rows = [row | {"end_ns": (i + 1) * SECOND // 10} for i in range(90) for row in (blocked, disk)]
    report = open_report([*rows, {"cgroup": "/calm"}])
    said, view = said_and_shown(report, "I/O: threads of /db")
    assert said == "Show all waits of this cgroup: blocked"
    assert "axis=cgroup" in view
    assert report.figures["rows"] == ["/db"]
    assert report.figures["count"] == 180


def test_a_process_has_no_row_and_no_button(open_report: Callable[..., Report]) -> None:
    moved = {"migrated": True, "cpu": 1, "prev_cpu": 0, "wait_ns": 10_000}
    rows = [moved | {"end_ns": i * SECOND // 1000} for i in range(9000)]
    report = open_report(rows)
    finding = report.page.locator(".finding", has_text="Migration: process 100")
    assert finding.is_visible()
    assert finding.locator(".show").is_hidden()


def test_many_findings_are_few_at_first(open_report: Callable[..., Report]) -> None:
    rows = [row for i in range(3) for row in starved(f"/victim-{i}")]
    throttled = {"kind": "throttled", "wait_ns": 50_000_000}
    rows += [
        throttled | {"cgroup": f"/limited-{i % 3}", "end_ns": i * SECOND // 20} for i in range(150)
    ]
    report = open_report(rows)
    found = report.page.locator(".finding")
    assert found.count() > 5
    assert report.page.locator(".finding:visible").count() == 3
    report.page.click("#more-findings")
    assert report.page.locator(".finding:visible").count() == found.count()


def test_no_button_hides_a_single_finding(open_report: Callable[..., Report]) -> None:
    throttled = {"kind": "throttled", "wait_ns": 50_000_000, "cgroup": "/limited"}
    rows = [throttled | {"end_ns": i * SECOND // 20} for i in range(150)]
    report = open_report([*rows, *(row for i in range(3) for row in starved(f"/victim-{i}"))])
    assert report.page.locator(".finding:visible").count() == 4
    assert report.page.is_hidden("#more-findings")


def test_what_could_not_be_looked_into_is_said_beside_a_finding(
    open_report: Callable[..., Report],
) -> None:
    target = {"pid": 7, "runtime": "go", "version": "go1.12", "exe": "/bin/old", "why": "too old"}
    report = open_report(starved("/victim"), targets=[target])
    assert report.page.locator(".finding").count()
    assert "1 Go program" in report.text("#diagnosis-note")
    assert report.page.locator("#diagnosis-note.fair").count() == 1


def test_nothing_is_said_where_nothing_is_wrong(open_report: Callable[..., Report]) -> None:
    report = open_report([row for row in starved("/x") if row["cgroup"] == "/calm"])
    assert report.page.locator(".finding").count() == 0
    assert report.text("#diagnosis-note") == "Nothing is wrong, as far as this recording shows."
