"""Who is to blame where a page cannot keep every victim: what has a row is known, or it is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sltrace.analysis import cubeblame
from tests.browser.report import Report
from tests.support.traces import SECOND

pytestmark = pytest.mark.browser

HOG = {"culprit_tid": 7, "culprit_pid": 7, "culprit_comm": "hog", "culprit_cgroup": "/hog"}
# Of the cgroup row of this name: its number from the bottom.
ROW = """([axis, name]) => {
    const {tickvals, ticktext} = document.getElementById("heatmap").layout.yaxis;
    return tickvals[ticktext.indexOf(name)];
}"""


def of_many(cgroups: int, each: int) -> list[dict[str, Any]]:
    """Each wait is of another process and thread; the first cgroups waited longest."""
    return [
        {
            "cgroup": f"/c{i:02}",
            "comm": f"t{i:02}-{j}",
            "pid": 1000 + i * each + j,
            "wait_ns": 1000 * (cgroups - i) + j,
            "end_ns": (1 + i + j) * SECOND // 10,
            "culprit_ns": 600,
            "culprit_stack": 1,
        }
        | HOG
        for i in range(cgroups)
        for j in range(each)
    ]


def select(report: Report, name: str, more: str = "") -> None:
    report.show("axis=cgroup")
    y = report.page.evaluate(ROW, ["cgroup", name])
    report.show(f"axis=cgroup&cells=0-299,{y}-{y}{more}".replace("Y", str(y)))
    assert report.figures["rows"] == [name]


def total(report: Report) -> int:
    return int(report.page.locator("#blame-view").get_attribute("data-total") or -1)


def test_cgroups_with_a_row_keep_their_culprits_however_many_processes_they_have(
    open_report: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cubeblame, "_MAX_TASKS", 30)
    report = open_report(of_many(20, 10))
    for name in ("/c00", "/c12", "/c19"):
        select(report, name)
        assert total(report) == report.figures["ns"] > 0
        assert report.page.is_hidden("#blame-note")
        assert "/hog" in report.text("#blame-view")
    # Nearly all of its processes are together, which none of them is called.
    report.show(report.page.url.partition("#")[2] + "&blame=process")
    names = report.page.locator("#blame-view tbody .name")
    assert names.all_text_contents() == ["all others"]
    assert "own" in (names.first.get_attribute("class") or "")


def test_culprits_that_were_not_kept_are_not_nobody(
    open_report: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cubeblame, "_MAX_TASKS", 12)
    stacks = [{"stack_id": 1, "space": "python", "pid": 7, "addresses": [1]}]
    frames = [{"space": "python", "pid": 7, "address": 1, "name": "f", "language": "python"}]
    report = open_report(of_many(20, 3), stacks=stacks, frames=frames)
    hint = "sltrace blame --only cgroup=… has them"
    select(report, "/c03")
    assert total(report) == report.figures["ns"]
    assert report.page.is_hidden("#blame-note")
    for more in ("", "&with=0-99,Y-Y"):
        select(report, "/c15", more)
        assert total(report) == 0
        assert hint in report.text("#blame-note")
        assert report.text("#blame-view").strip() == ""
    select(report, "/c15", "&stack=culprit")
    assert hint in report.text("#flame-note")
    assert report.text("#flame-status") == "None that is kept here."
    # Of all rows nothing is missing.
    report.show("axis=cgroup&cells=0-299,0-19")
    assert total(report) == report.figures["ns"]
    assert report.page.is_hidden("#blame-note")
