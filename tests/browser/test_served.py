"""The report as `sltrace serve` serves it, in a browser: exact at any zoom, and what if it goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from heatmaps.page import build_page
from sltrace.analysis.cube import build_cube
from sltrace.analysis.part import Whole
from sltrace.cli.web import Server
from sltrace.profiles.stored import stored_profiles
from sltrace.trace.reader import Trace
from tests.browser.report import AWAKE, FRAMES, HOSTILE, STACKS, Report, waits
from tests.browser.test_diagnosis import starved
from tests.browser.test_traces import traced
from tests.support.profiles import make_pprof
from tests.support.traces import SECOND, make_trace

if TYPE_CHECKING:
    from tests.browser.pages import Pages

pytestmark = pytest.mark.browser

GONE = "does not answer any more"


class Served(Report):
    """A page of a server, and the server."""

    def __init__(self, pages: Pages, trace: Trace) -> None:
        profiles, _ = stored_profiles(trace)
        whole = Whole(trace, profiles)
        html = build_page(trace, whole.cube(), served=True).html
        self.server = Server(whole, html, "127.0.0.1", 0)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.running = True
        # The witness looks at the trace through a connection of its own.
        super().__init__(pages.take(origin="http"), self.server.url, Trace.open(trace.path))

    def stop(self) -> None:
        if self.running:
            self.running = False
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()

    @property
    def status(self) -> str:
        return self.text("#zoom-status")

    def zoom(self, left: float, right: float) -> None:
        """Drags over these shares of the plot's width with Plotly's own zoom."""
        self.page.locator("#heatmap .modebar-btn[data-val=zoom]").click()
        before = self.page.url
        # Nearly level: Plotly then zooms the time only.
        self.drag_any(left, 0.5, right, 0.502)
        self.until(lambda: self.page.url != before)
        self.page.locator("#heatmap .modebar-btn[data-val=select]").click()

    def exact(self, line: int = 0) -> dict[str, int]:
        """The exact figures in the tiles of a selection."""
        tiles = f"#figures > .figures:nth-child({line + 1}) .figure[data-exact]"
        self.until(lambda: self.page.locator(tiles).count() == 5)
        found = self.page.locator(tiles).evaluate_all(
            "all => all.map(f => [f.dataset.name, +f.dataset.exact])"
        )
        return dict(found)

    def percentiles(self, where: str = "true") -> dict[str, int]:
        """The same from the trace, by DuckDB."""
        figures = self.figures
        (row,) = self.trace.sql(
            "SELECT quantile_disc(wait_ns, 0.5) AS p50, quantile_disc(wait_ns, 0.9) AS p90, "
            'quantile_disc(wait_ns, 0.99) AS p99, quantile_disc(wait_ns, 0.999) AS "p99.9", '
            f"max(wait_ns) AS longest FROM waits WHERE kind IN {AWAKE!r} AND end_ns >= ? "
            f"AND end_ns < ? AND ({where})",
            [figures["from"], figures["to"]],
        ).to_pylist()
        return row


@pytest.fixture
def serve(pages: Pages, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    reports: list[Served] = []

    def served(rows: Any = None, **tables: Any) -> Served:
        rows = waits() if rows is None else rows
        reports.append(Served(pages, Trace.open(make_trace(tmp_path, rows, **tables))))
        return reports[-1]

    yield served
    for report in reports:
        report.close(pages, "http")
        report.stop()
        own = report.server.url
        assert [url for url in report.requests if not url.startswith((own, "about:"))] == []
        # What the browser itself says of a server that is gone is no complaint of the page.
        assert [c for c in report.complaints if "net::ERR_" not in c] == []


def test_zooming_in_asks_for_finer_cells_that_are_duckdb_s(serve: Callable[..., Served]) -> None:
    page = serve(stacks=STACKS, frames=FRAMES)
    assert page.exact() == page.percentiles()
    coarse = page.figures["to"] - page.figures["from"]
    page.zoom(0.4, 0.45)
    figures = page.figures
    assert figures["to"] - figures["from"] < coarse / 15
    assert abs(figures["from"] - 4 * SECOND) < 0.1 * SECOND
    assert (figures["count"], figures["ns"]) == page.by_duckdb()
    assert figures["count"] > 50
    assert page.exact() == page.percentiles()
    assert sum(page.frames.values()) >= figures["ns"]
    assert "counted from all its waits" in page.status
    # Again, to a hundred thousandth of the recording, and a selection there.
    page.zoom(0.2, 0.6)
    page.drag(0.1, 0.1, 0.7, 0.9)
    figures = page.figures
    assert figures["to"] - figures["from"] < coarse / 50
    assert (figures["count"], figures["ns"]) == page.by_duckdb(page.latency())
    assert page.exact() == page.percentiles(page.latency())


def test_who_is_to_blame_is_of_the_part(serve: Callable[..., Served]) -> None:
    """A part has its own list of culprits, in another order."""
    hogs = [("/early", 5, SECOND), ("/late", 9, 8 * SECOND), ("/early", 5, 2 * SECOND)]
    rows = [
        {"end_ns": end, "wait_ns": 1_000_000, "kind": "runq_preempt", "cgroup": f"/victim{i}",
         "culprit_tid": tid, "culprit_pid": tid, "culprit_cgroup": cgroup, "culprit_comm": "hog",
         "culprit_ns": 1_000_000}
        for i, (cgroup, tid, end) in enumerate(hogs)
    ]  # fmt: skip
    page = serve(rows)
    assert "/early" in page.text("#blame-view")
    from_ns = page.figures["from"]
    part = f"{7 * SECOND - from_ns}-{9 * SECOND - from_ns}"
    page.page.evaluate(f"() => {{ location.hash = 'part={part}'; }}")
    page.until(lambda: page.figures["count"] == 1)
    page.until(lambda: "/late" in page.text("#blame-view"))
    assert "/early" not in page.text("#blame-view")
    assert "/victim1" in page.text("#blame-view")


def test_kinds_of_a_part_are_its_own(serve: Callable[..., Served]) -> None:
    """A part has its own list of kinds, in another order."""
    early = [("blocked", 9_000_000), ("runq_wakeup", 8_000), ("runq_preempt", 7_000)]
    late = {"runq_wakeup": 3_000_000, "runq_preempt": 2_000, "blocked": 1_000}
    page = serve(
        [{"end_ns": SECOND, "kind": kind, "wait_ns": ns} for kind, ns in early * 3]
        + [{"end_ns": 8 * SECOND, "kind": kind, "wait_ns": ns} for kind, ns in late.items()]
    )
    from_ns = page.figures["from"]
    part = f"part={7 * SECOND - from_ns}-{9 * SECOND - from_ns}"
    for y in range(3):
        page.visit(f"{page.server.url}#axis=kind&kinds={','.join(late)}&cells=0-299,{y}-{y}&{part}")
        (kind,) = page.figures["rows"]
        assert (page.figures["count"], page.figures["ns"]) == (1, late[kind])


def test_kinds_of_a_coarse_part_are_drawn_where_they_are_named(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of the waits is throttled, the rest of another kind in each part."""
    rows = [
        {"end_ns": i * SECOND // 300, "wait_ns": 100 + 40 * i, "comm": f"c{i % 9}"}
        | {"kind": "throttled" if i % 3 == 0 else "blocked" if i > 1500 else "runq_wakeup"}
        for i in range(3000)
    ]
    page = serve([*rows, {"end_ns": SECOND, "wait_ns": 9 * SECOND}])
    monkeypatch.setattr("sltrace.analysis.part.build_cube", partial(build_cube, max_rows=200))
    kinds = "throttled,runq_wakeup,blocked"
    page.visit(f"{page.server.url}#axis=kind&kinds={kinds}&part=6000000000-8000000000")
    assert "drawn finer" in page.status
    drawn = page.page.evaluate(
        """() => { const {data: [{z}], layout: {yaxis}} = document.getElementById("heatmap");
        return yaxis.tickvals.map((y, i) =>
            [yaxis.ticktext[i], z[y].filter((v) => v !== null).length]); }"""
    )
    cells = dict(drawn)
    assert cells["woken"] == 0
    assert 50 < cells["CPU quota"] < cells["blocked"]


def test_what_a_part_lacks_is_back_with_the_whole_recording(serve: Callable[..., Served]) -> None:
    page = serve([*starved("/victim"), *traced()])
    offered = page.page.locator(".finding .show:visible")
    before = offered.count()
    assert before
    # No wait ends there.
    page.visit(f"{page.server.url}#part=1-2")
    assert "counted from" in page.status
    assert offered.count() == 0
    page.page.locator("#zoom-out").click()
    page.until(lambda: offered.count() == before)
    assert page.page.is_visible("#traces-panel")


def test_exact_percentiles_are_compared_exactly(serve: Callable[..., Served]) -> None:
    """Both are in one bucket."""
    page = serve(
        [
            {"end_ns": second * SECOND + i, "wait_ns": ns}
            for second, ns in ((2, 990_000), (7, 1_040_000))
            for i in range(50)
        ]
    )
    page.show("axis=kind&cells=0-149,0-0&with=150-299,0-0")
    assert page.exact(0)["p50"] == 990_000
    assert page.exact(1)["p50"] == 1_040_000
    change = page.page.locator('#figures [data-change="p50"] b')
    page.until(lambda: change.inner_text() == "× 1.05")


def test_a_burst_that_was_one_cell_is_seen_wait_by_wait(serve: Callable[..., Served]) -> None:
    ends = 5 * SECOND + np.arange(40) * 100_000
    burst = [{"end_ns": int(end), "wait_ns": 50_000 + i} for i, end in enumerate(ends)]
    page = serve([{"end_ns": SECOND}, *burst, {"end_ns": 9 * SECOND}])
    columns = "() => new Set([...document.querySelectorAll('#heatmap')].flatMap(n => n.data[0].z"
    columns += ".flatMap(row => row.flatMap((v, x) => v === null ? [] : [x])))).size"
    assert page.page.evaluate(columns) == 3
    from_ns = page.figures["from"]
    part = f"{5 * SECOND - from_ns}-{5 * SECOND + 4_000_000 - from_ns}"
    recorded = page.text("#recorded")
    page.visit(f"{page.server.url}#part={part}")
    assert page.text("#recorded") == recorded
    assert page.figures["count"] == 40
    assert page.page.evaluate(columns) == 40
    page.page.locator("#zoom-out").click()
    page.until(lambda: page.figures["count"] == 42)
    assert "part" not in page.page.url
    # The selected time, and out again by Plotly's own gesture.
    page.show("cells=130-136,0-1")
    page.page.locator("#zoom-in").click()
    page.until(lambda: page.figures["count"] == 40)
    page.page.locator("#heatmap .modebar-btn[data-val=zoom]").click()
    page.page.locator("#heatmap .nsewdrag").dblclick()
    page.until(lambda: page.figures["count"] == 42)


def test_a_part_has_the_profile_time_of_the_same_selection(serve: Callable[..., Served]) -> None:
    """Each sample's value is a power of two: their sum tells which were let in."""
    rows = traced()
    ids = sorted({row["trace_id"] for row in rows})
    labelled = [(("work",), [1, 1 << i], {"trace_id": id_}) for i, id_ in enumerate(ids)]
    pushes = [
        {"start_ns": start * SECOND, "end_ns": end * SECOND, "app": "svc", "profile": profile}
        for start, end, profile in (
            (0, 10, make_pprof({}, labelled=labelled)),
            (4, 5, make_pprof({("work", "deep"): [1, 1 << 44]})),
            (6, 7, make_pprof({("work",): [1, 1 << 45]})),
        )
    ]
    page = serve(rows, profiles=pushes)
    ran = page.page.locator("#flame g.frame").first
    own = "node => [+node.dataset.value, +(node.dataset.ran || 0)]"
    # The same by a selection of the whole recording's page and by the part of the same time.
    page.show("axis=policy&cells=90-194,0-1")
    figures = page.figures
    expected = ran.evaluate(own)
    assert expected[1] & (1 << 44)
    assert not expected[1] & (1 << 45)
    assert 0 < expected[1] - (1 << 44) < (1 << len(ids)) - 1
    page.page.locator("#zoom-in").click()
    page.until(lambda: "part=" in page.page.url and "counted from" in page.status)
    assert (page.figures["count"], page.figures["ns"]) == (figures["count"], figures["ns"])
    assert ran.evaluate(own) == expected
    assert "In this part: " in page.text("#flame-note")
    assert "Left out: " in page.text("#flame-note")
    # Of the part's first half no trace is let in that was not of the whole.
    page.show(page.page.url.partition("#")[2] + "&cells=0-149,0-1")
    inside = ran.evaluate(own)[1]
    assert 0 < inside < expected[1]
    assert inside & expected[1] == inside


@pytest.mark.parametrize("touch", [False, True])
def test_a_part_that_comes_during_a_drag_has_no_selection(
    serve: Callable[..., Served], touch: bool
) -> None:
    """Its rows and its times are not those that were dragged over."""
    page = serve()
    page.exact()
    held = (
        "Held.prototype.free = ((free) => function () { window.frees++; return free.call(this) })"
    )
    page.page.evaluate(f"() => {{ window.frees = 0; {held}(Held.prototype.free); }}")

    def part() -> None:
        page.page.evaluate("() => { location.hash = 'part=5000000000-6000000000' }")
        # One is of what is drawn without a selection, one of the part that has been read.
        page.until(lambda: page.page.evaluate("frees") == 2)

    page.drag_meanwhile(part, touch)
    page.until(lambda: "counted from" in page.status)
    page.exact()
    assert page.page.url.endswith("#part=5000000000-6000000000")
    assert "Selected" not in page.text("#figures .figures-title")
    assert (page.figures["count"], page.figures["ns"]) == page.by_duckdb()
    assert page.figures["to"] - page.figures["from"] < 1.1 * SECOND


def test_cells_are_of_the_part_that_the_address_names(serve: Callable[..., Served]) -> None:
    """They are selected when it has come, and not before; where it does not come none are."""
    page = serve()
    asked: list[Any] = []
    title = "#figures .figures-title"
    first = "part=4000000000-5000000000&cells=10-20,0-20"
    page.show("cells=30-200,0-20")
    whole = page.figures
    page.page.evaluate(f"() => {{ location.hash = '{first}' }}")
    page.until(lambda: "Selected" in page.text(title) and "part=" in page.page.url)
    page.until(lambda: page.figures["from"] > 4 * SECOND)
    selected = page.figures
    assert (selected["count"], selected["ns"]) == page.by_duckdb(page.latency())

    page.page.route("**/api/part*", lambda route: asked.append(route))
    page.show("part=7000000000-8000000000&cells=30-40,0-20")
    page.until(lambda: len(asked) == 1)
    assert page.text(title).startswith("From 4 s to 5 s")
    # Back to the first before the other one has come: that is not shown then.
    page.page.go_back()
    page.until(lambda: len(asked) == 2)
    assert page.figures == selected
    asked[1].continue_()
    page.until(lambda: "From 4 s to 5 s, in cells" in page.status)
    assert page.figures == selected
    # None that is refused leaves a selection.
    page.page.unroute("**/api/part*")
    page.page.route("**/api/part*", lambda route: route.abort())
    page.show("part=7000000000-8000000000&cells=30-40,0-20")
    page.until(lambda: GONE in page.status)
    assert page.text(title).startswith("From 4 s to 5 s")
    page.visit(f"{page.server.url}#part=7000000000-8000000000&cells=30-40,0-20")
    assert page.text(title).startswith("The whole recording")
    page.page.unroute("**/api/part*")
    page.show("cells=30-200,0-20")
    assert page.figures == whole


def test_every_axis_is_exact_where_it_can_be_and_says_so(serve: Callable[..., Served]) -> None:
    page = serve()
    for axis, column in (("cpu", "cpu"), ("cgroup", "cgroup")):
        page.show(f"axis={axis}&cells=30-200,0-0")
        (name,) = page.figures["rows"]
        where = f"{column} = {name}" if axis == "cpu" else f"{column} = '{name}'"
        assert (page.figures["count"], page.figures["ns"]) == page.by_duckdb(where)
        assert page.exact() == page.percentiles(where)
    page.show("cells=30-80,0-90&with=100-200,0-90")
    assert page.exact(0) == page.percentiles(page.latency())
    assert page.exact(1) != page.exact(0)


def test_without_the_server_the_page_goes_on_and_says_so(serve: Callable[..., Served]) -> None:
    page = serve()
    page.exact()
    page.stop()
    page.page.context.set_offline(True)
    page.page.locator("#heatmap .modebar-btn[data-val=zoom]").click()
    page.drag_any(0.4, 0.3, 0.5, 0.7)
    page.until(lambda: GONE in page.status)
    page.page.locator("#heatmap .modebar-btn[data-val=select]").click()
    page.drag(0.2, 0.2, 0.8, 0.8)
    figures = page.figures
    assert (figures["count"], figures["ns"]) == page.by_duckdb(page.latency())
    assert page.page.locator(".figure[data-exact]").count() == 0


def test_hostile_names_come_through_the_server_as_text(serve: Callable[..., Served]) -> None:
    rows = [
        {"end_ns": (1 + i) * SECOND, "wait_ns": 1000 * (1 + i), "cgroup": name, "comm": name}
        for i, name in enumerate(HOSTILE)
    ]
    page = serve(rows)
    page.zoom(0.05, 0.9)
    assert page.page.evaluate("() => window.pwned") is None
    page.visit(f"{page.server.url}#axis=cgroup&cells=0-299,0-0")
    page.exact()
    assert page.page.evaluate("() => window.pwned") is None
