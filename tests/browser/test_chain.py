"""The page of blocking chains: what it shows is what DuckDB counts, whatever things are called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from heatmaps.chainpage import build_chain_page
from sltrace.analysis.golang.chain import chain
from sltrace.trace.reader import Trace
from tests.browser.report import HOSTILE, Report
from tests.support.traces import SECOND, make_trace

if TYPE_CHECKING:
    from tests.browser.pages import Pages

pytestmark = pytest.mark.browser

NAMES = (*HOSTILE, "main.fetch", "main.store", *(f"main.worker{i}" for i in range(8)))
REASONS = ("chan receive", "select", HOSTILE[0], "sync.Mutex.Lock")


def goroutine_waits(count: int = 400) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    for i in range(count):
        stack, waker = (int(n) for n in rng.integers(1, len(NAMES) + 1, 2))
        row = {
            "kind": "goroutine_blocked",
            "end_ns": (i + 1) * SECOND // 50,
            "wait_ns": int(rng.integers(1, SECOND // 60)),
            "goid": int(rng.integers(1, 6)),
            "reason": REASONS[rng.integers(len(REASONS))],
            "stack_runtime": stack,
            "trace_id": f"{int(rng.integers(4)):032x}",
        }
        if rng.random() < 0.7:
            row |= {"waker_goid": int(rng.integers(6, 9)), "waker_stack_runtime": waker}
        rows += [row, row | {"kind": "goroutine", "wait_ns": 1000 + i}]
    return rows


@contextmanager
def opened(
    pages: Pages,
    folder: Path,
    trace_id: str | None = None,
    scheme: str = "light",
    rows: list[dict[str, Any]] | None = None,
) -> Iterator[Report]:
    frames = [
        {"space": "go", "pid": 100, "address": i, "name": name, "module": "x", "build_id": "",
         "language": "go"}
        for i, name in enumerate(NAMES, 1)
    ]  # fmt: skip
    stacks = [
        {"stack_id": i, "space": "go", "pid": 100, "addresses": [i]}
        for i in range(1, len(NAMES) + 1)
    ]
    trace = Trace.open(make_trace(folder, rows or goroutine_waits(), stacks=stacks, frames=frames))
    file = folder / "chain.html"
    found = chain(trace, trace_id)
    file.write_bytes(build_chain_page(trace, found, f"trace {trace_id}" if trace_id else ""))
    report = Report(pages.take(scheme, 1300, 900), file.as_uri(), trace)
    yield report
    assert report.page.evaluate("window.pwned") is None
    report.close(pages)
    report.good()


def test_the_graph_holds_every_nanosecond(pages: Pages, tmp_path: Path) -> None:
    with opened(pages, tmp_path) as report:
        total, count = report.trace.sql(
            "SELECT sum(wait_ns)::BIGINT AS ns, count(*) AS n FROM waits "
            "WHERE kind = 'goroutine_blocked'"
        ).to_pylist()[0].values()  # fmt: skip
        for step in (0, 1):
            bands = report.page.locator(f".band[data-from='{step}']")
            sums = bands.evaluate_all("all => all.map(node => +node.dataset.ns)")
            assert sum(sums) == total
        queued = report.trace.sql(
            "SELECT sum(wait_ns)::BIGINT AS ns FROM waits WHERE kind = 'goroutine'"
        )["ns"][0].as_py()
        assert f"for a P after that, {queued / 1000:.0f} µs," in report.text("#graph-note")
        # All links are rows of the table, hostile names as text.
        if report.page.locator("#links .more").count():
            report.page.click("#links .more")
        cells = report.page.locator("#links tbody tr td:last-child").all_inner_texts()
        assert sum(int(text.replace(",", "")) for text in cells) == count
        shown = report.text("#links")
        assert "<img src=x" in shown
        assert not set(shown) & {"\u202e", "\u2066", "\x1b"}
        assert report.page.is_hidden("#path-panel")


def test_a_path_has_its_waits_and_who_ended_them(pages: Pages, tmp_path: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe

    wanted = f"{2:032x}"
    with opened(pages, tmp_path, wanted, "dark") as report:
        rows = report.trace.sql(
            f"SELECT kind, wait_ns, waker_goid FROM waits WHERE trace_id = '{wanted}' "
            "ORDER BY end_ns"
        ).to_pylist()
        bars = report.page.locator("#path .wait")
        drawn = bars.evaluate_all("all => all.map(node => +node.dataset.ns)")
        assert sorted(drawn) == sorted(row["wait_ns"] for row in rows)
        ended = [r for r in rows if r["kind"] == "goroutine_blocked" and r["waker_goid"]]
        assert report.page.locator("#path .arrow").count() == len(ended)
        report.page.locator("#steps summary").click()
        found = Axe().run(report.page)
        assert [v["id"] for v in found.response["violations"]] == []


def test_goroutines_of_two_processes_have_lanes_of_their_own(pages: Pages, tmp_path: Path) -> None:
    waits = [
        {"pid": pid, "goid": 7, "waker_goid": 1, "kind": "goroutine_blocked", "trace_id": "a" * 32}
        | {"end_ns": at * SECOND, "wait_ns": SECOND // 2}
        for pid, at in ((100, 1), (101, 2), (100, 3))
    ]
    with opened(pages, tmp_path, "a" * 32, rows=waits) as report:
        lanes = report.page.locator("#path text:not(.side)").all_text_contents()
        assert lanes == [f"goroutine {g} of pid {p}" for p in (100, 101) for g in (1, 7)]
        rows = report.page.locator("#path .wait").evaluate_all(
            "all => all.map(node => node.getAttribute('y'))"
        )
        assert rows[0] == rows[2] != rows[1]
        report.page.locator("#steps summary").click()
        shown = report.page.locator("#steps tbody tr").all_inner_texts()
        assert [("pid 100" in s, "pid 101" in s) for s in shown] == [
            (pid == 100, pid == 101) for pid in (100, 101, 100)
        ]
        # Both are from the first wait's begin on.
        assert [s.split("\t")[-2] for s in shown] == ["0.000 ms", "1,000.000 ms", "2,000.000 ms"]


def test_words_of_the_graph_stay_large_in_a_narrow_window(pages: Pages, tmp_path: Path) -> None:
    with opened(pages, tmp_path) as report:
        for width in (1300, 600):
            report.page.set_viewport_size({"width": width, "height": 600})
            report.until(lambda width=width: fits(report, width))


def fits(report: Report, width: int) -> bool:
    """Whether all is drawn for this width, with words that can be read."""
    heights = report.page.locator("#graph text").evaluate_all(
        "all => all.map(t => t.getBoundingClientRect().height)"
    )
    wide = report.page.evaluate("document.documentElement.scrollWidth")
    return min(heights, default=0) > 11 and wide <= width


def test_paper_has_all_of_it(pages: Pages, tmp_path: Path) -> None:
    with opened(pages, tmp_path, f"{2:032x}") as report:
        report.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        report.page.emulate_media(media="print")
        report.page.set_viewport_size({"width": 600, "height": 900})

        def within(drawing: str) -> bool:
            # It may just be drawn anew, for the new width.
            right = "svg => svg.getBoundingClientRect().right"
            return bool(report.page.locator(drawing).evaluate(right) <= 600)

        for drawing in ("#graph svg", "#path svg"):
            report.until(lambda drawing=drawing: within(drawing))
        # Why, and who ended it, is a part of each line.
        assert report.page.locator("#links td .help").first.is_visible()
