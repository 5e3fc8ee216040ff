"""The report of a merged trace: which recordings it is of, and when there was none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    for share, said in ((0.1, "no waits"), (0.4, "not recorded")):
        report.page.mouse.move(box["x"] + share * box["width"], box["y"] + 2)
        report.until(lambda said=said: report.tip[-1:] == [said])


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


def of_each() -> list[dict[str, Any]]:
    """Waits of each machine while it was recorded: the first for 3 s, the second for 4 s."""
    return [
        row | {"cpu": cpu, "cgroup": f"{PARTS[cpu]['host']}:/svc"}
        for row in ROWS
        for cpu in [int(row["end_ns"] >= 5 * SECOND)]
    ]


@pytest.mark.parametrize("axis", ["cgroup", "cpu"])
def test_a_row_is_recorded_when_its_machine_is(
    open_report: Callable[..., Report], axis: str
) -> None:
    report = open_report(of_each(), meta=META, shared=True)
    report.show(f"axis={axis}")
    box = report.page.locator("#heatmap .nsewdrag").bounding_box()
    assert box
    report.page.mouse.move(box["x"] + 2, box["y"] + 2)
    report.until(lambda: report.tip != [])

    def is_of_first() -> bool:
        return report.tip[0] in ("CPU 0", "web1:/svc")

    first = is_of_first()
    upper = [False, True, True] if first else [True, True, False]
    for share, *gone in zip((0.2, 0.45, 0.8), upper, upper[::-1], strict=True):
        for row in (0, 1):
            y = box["y"] + (0.25 + 0.5 * row) * box["height"]
            report.page.mouse.move(box["x"] + share * box["width"], y)
            # It was in the other row before.
            report.until(lambda above=row == 0: is_of_first() == (above == first))
            assert (report.tip[-1] == "not recorded") == gone[row]


def test_what_is_per_second_is_of_the_machines_time(open_report: Callable[..., Report]) -> None:
    report = open_report(of_each(), meta=META, shared=True)
    # Each row for the whole time, one against the other.
    report.show("axis=cpu&cells=0-299,1-1&with=0-299,0-0&compare=rate")
    lost = report.text("#selection-losses")
    assert "in 7.00 s of A's 10.0 s and 6.00 s of B's 10.0 s" in lost
    awake = [row["cpu"] for row in of_each() if row["kind"] != "blocked"]
    counts = [awake.count(cpu) for cpu in (0, 1)]
    times = report.page.locator("#figures [data-change='waits / s'] b").inner_text()
    factor = (counts[1] / 4) / (counts[0] / 3)
    assert float(times.removeprefix("× ")) == pytest.approx(factor, rel=0.006)
