"""The report of a merged trace: which recordings it is of, and when there was none."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sltrace.analysis.diff import diff
from sltrace.analysis.selection import Selection
from sltrace.analysis.sides import before_and_after
from tests.browser.report import HOSTILE, Report, waits
from tests.support.traces import SECOND

pytestmark = pytest.mark.browser

PARTS = [
    {"trace": "one.slt", "host": "web1", "cpu_offset": 0, "pid_offset": 0, "start_ns": 0}
    | {"end_ns": 3 * SECOND, "filters": {}, "command_line": ["sltrace", "record", "-d", "3"]},
    {"trace": HOSTILE[1], "host": HOSTILE[0], "cpu_offset": 1, "pid_offset": 4194304}
    | {"start_ns": 6 * SECOND, "end_ns": 10 * SECOND, "filters": {"comms": ["web"]}}
    | {"command_line": ["sltrace", "record", "--comm", "web"]},
]
META = {"merged": PARTS, "host": "web1, web2"}
ROWS = [row for row in waits() if not 3 * SECOND <= row["end_ns"] < 6 * SECOND]


def test_time_between_recordings_is_not_calm(open_report: Callable[..., Report]) -> None:
    report = open_report(ROWS, meta=META, shared=True)
    assert "Nothing was recorded in 3.00 s of these 10.0 s" in report.text("#selection-losses")
    assert report.page.is_visible("#gap-help")
    veil = report.page.locator("#heatmap .shapelayer path").first.bounding_box()
    box = report.page.locator("#heatmap .nsewdrag").bounding_box()
    assert veil
    assert box
    assert veil["width"] == pytest.approx(0.3 * box["width"], abs=2)
    said = []
    for share in (0.1, 0.4):
        report.page.mouse.move(box["x"] + share * box["width"], box["y"] + 2)
        report.page.wait_for_timeout(100)
        said.append(report.text("#tip").splitlines()[-1])
    assert said == ["no waits", "not recorded"]


def test_what_is_per_second_is_of_the_recorded_time(open_report: Callable[..., Report]) -> None:
    report = open_report(ROWS, meta=META, shared=True)
    # 150 of 300 bins each: A has 3 s that were recorded, B 4 s.
    top = report.page.evaluate("document.getElementById('heatmap').layout.yaxis.maxallowed - 0.5")
    report.show(f"cells=0-149,0-{top:.0f}&with=150-299,0-{top:.0f}&compare=rate")
    by_diff = diff(before_and_after(report.trace, 5 * SECOND, Selection()), by=["cgroup"])
    (groups,) = by_diff.groups
    for change in groups.changes:
        cells = report.page.locator("#tables [data-by=cgroup] tr", has_text=change.name)
        shown = cells.locator("td").all_inner_texts()[1:3]
        for text, value in zip(shown, (change.a, change.b), strict=True):
            number, unit = text.split(" ")
            assert float(number) * {"s": 1e9, "ms": 1e6}[unit] == pytest.approx(value, rel=0.006)
    lost = report.text("#selection-losses")
    assert "in 2.00 s of A's 5.00 s and 1.00 s of B's 5.00 s" in lost


def test_each_recording_is_told(open_report: Callable[..., Report]) -> None:
    report = open_report(ROWS, meta=META, shared=True)
    rows = report.page.locator("#recordings tbody tr").evaluate_all(
        "rows => rows.map(r => [...r.cells].map(c => c.textContent))"
    )
    assert rows[0][:4] == ["one.slt", "web1", "none: the whole machine", "sltrace record -d 3"]
    assert rows[1][2:4] == ["comms web", "sltrace record --comm web"]
    assert [row[4:] for row in rows] == [
        ["0 s", "3.00 s", "0", "0"],
        ["6 s", "4.00 s", "4,194,304", "1"],
    ]
    assert report.page.locator("#about img, #about script").count() == 0
    assert "Command" not in report.page.locator("#about dt").all_inner_texts()
