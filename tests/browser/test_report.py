"""The report in a real browser, its numbers against DuckDB on the same trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from heatmaps.facts import facts
from sltrace.analysis.cube import build_cube
from sltrace.analysis.latency import stat
from sltrace.trace.reader import Trace
from tests.browser.report import FRAMES, HOSTILE, KINDS, STACKS, Report, limits, waits
from tests.support.traces import SECOND, make_trace

pytestmark = pytest.mark.browser


def test_all_of_it_without_a_selection(open_report: Callable[..., Report]) -> None:
    report = open_report()
    figures = report.figures
    assert (figures["count"], figures["ns"]) == report.by_duckdb()
    assert report.frames["all"] == sum(
        total.total_ns for kind, total in stat(report.trace).totals.items() if kind != "blocked"
    )
    assert report.text("#losses") == "Nothing was lost."
    assert "testhost" in report.text("h1")
    assert "6.18.0" in report.text("#recorded")


def test_a_rectangle_drawn_with_the_mouse(open_report: Callable[..., Report]) -> None:
    report = open_report(stacks=STACKS, frames=FRAMES)
    report.drag(0.21, 0.2, 0.64, 0.6)
    figures = report.figures
    # Snapped outwards to whole cells of 33 ms; a pixel is 15 ms.
    assert 2.04 * SECOND < figures["from"] < 2.13 * SECOND
    assert 6.37 * SECOND < figures["to"] < 6.46 * SECOND
    inside = report.latency()
    expected = report.by_duckdb(inside)
    assert 0 < expected[0] < 2000
    assert (figures["count"], figures["ns"]) == expected
    frames = report.frames
    assert frames["all"] == expected[1]
    assert frames["futex_wait"] == report.by_duckdb(f"{inside} AND stack_kernel = 1")[1]
    assert frames["pipe_read"] == report.by_duckdb(f"{inside} AND stack_kernel = 2")[1]
    assert frames["do_syscall"] == expected[1]
    report.page.select_option("#stack", "waker")
    report.page.select_option("#weight", "count")
    assert report.frames == {"all": expected[0], "try_to_wake_up": expected[0]}


def test_a_rectangle_made_with_the_keyboard(open_report: Callable[..., Report]) -> None:
    report = open_report()
    report.page.focus("#heatmap")
    for key in ["ArrowLeft", *["Control+ArrowLeft"] * 3, *["Control+Shift+ArrowRight"] * 6]:
        report.page.keyboard.press(key)
    for key in ["Control+Shift+ArrowDown"] * 4 + ["Shift+ArrowUp"]:
        report.page.keyboard.press(key)
    figures = report.figures
    expected = report.by_duckdb(report.latency())
    assert expected[0] > 10
    assert (figures["count"], figures["ns"]) == expected
    assert report.text("#heat-status")
    report.page.keyboard.press("Escape")
    assert "cells" not in report.page.url
    assert report.text("#heat-status") == "The selection is cleared."
    report.drag(0.2, 0.2, 0.4, 0.4)
    assert not report.text("#heat-status")
    report.page.click("#clear")
    assert report.figures["count"] == report.by_duckdb()[0]


def test_percentile_limits_hold_the_true_percentile(open_report: Callable[..., Report]) -> None:
    report = open_report()
    report.drag(0.1, 0.1, 0.9, 0.9)
    figures, inside = report.figures, report.latency()
    found = report.trace.sql(
        "SELECT quantile_disc(wait_ns, 0.5) AS p50, quantile_disc(wait_ns, 0.99) AS p99, "
        "max(wait_ns) AS longest FROM waits WHERE kind <> 'blocked' "
        f"AND end_ns >= ? AND end_ns < ? AND {inside}",
        [figures["from"], figures["to"]],
    ).to_pylist()[0]
    assert figures["max"] == found["longest"]
    for name in ("p50", "p99"):
        text = report.text(f'#figures [data-name="{name}"] b')
        low, high = limits(text)
        # Shown with four digits.
        assert low * 0.999 <= found[name] <= high * 1.001
        assert high <= low * 1.13


def test_the_hash_restores_view_and_selection(open_report: Callable[..., Report]) -> None:
    report = open_report()
    report.page.select_option("#measure", "count")
    report.page.check('#kinds input[value="blocked"]')
    report.drag(0.3, 0.3, 0.5, 0.7)
    url, figures = report.page.url, report.figures
    assert (figures["count"], figures["ns"]) == report.by_duckdb(report.latency(), KINDS)
    report.visit(url)
    assert report.figures == figures
    assert report.page.input_value("#measure") == "count"
    assert report.page.is_checked('#kinds input[value="blocked"]')
    report.visit(report.url + "#cells=9-1,0-99999&axis=%3Cb%3E&kinds=nonsense")
    assert report.figures["count"] == 0
    # Cells of a part, which only a page that is served reads.
    report.visit(report.url + "#cells=30-50,10-20&part=1000-2000")
    assert report.text("#figures .figures-title") == "The whole recording"


def test_other_rows(open_report: Callable[..., Report]) -> None:
    report = open_report()
    for axis in ("cpu", "cgroup", "policy", "kind"):
        report.page.select_option("#axis", axis)
        report.drag(0.4, 0.02, 0.6, 0.1)
        figures = report.figures
        assert len(figures["rows"]) == 1
        expected = report.by_duckdb(f"{axis} = '{figures['rows'][0]}'")
        assert expected[0] > 10
        assert (figures["count"], figures["ns"]) == expected
        report.page.click("#clear")


def test_losses_are_said_first_and_drawn(open_report: Callable[..., Report]) -> None:
    counters = [
        {"cpu": 1, "name": "ring_full", "class": "loss", "value": 1204}
        | {"start_ns": 4 * SECOND, "end_ns": 5 * SECOND},
        {"cpu": 1, "name": "below_min", "class": "discard", "value": 77}
        | {"start_ns": 0, "end_ns": SECOND},
    ]
    report = open_report(counters=counters)
    assert "1,204 waits lost on CPU 1" in report.text("#losses")
    assert "Refused on purpose: 77 waits shorter than --min-latency" in report.text(".notice")
    assert report.page.locator("#heatmap .shapelayer path").count() == 3
    assert report.page.is_visible("#loss-help")
    strip = report.page.locator("#heatmap .shapelayer path").last.bounding_box()
    buttons = report.page.locator("#heatmap .modebar-btn svg").first.bounding_box()
    assert strip
    assert buttons
    assert strip["y"] >= buttons["y"] + buttons["height"]
    report.drag(0.1, 0.1, 0.3, 0.9)
    assert "No wait was lost in this time range" in report.text("#selection-losses")
    report.drag(0.35, 0.1, 0.45, 0.9)
    assert "1,204 waits were lost" in report.text("#selection-losses")


def test_losses_of_a_cpu_are_said_of_its_row_only(open_report: Callable[..., Report]) -> None:
    lost = {"name": "ring_full", "class": "loss", "start_ns": 4 * SECOND, "end_ns": 5 * SECOND}
    counters = [lost | {"cpu": 1, "value": 1204}, lost | {"cpu": 0, "value": 7}]
    report = open_report(
        [*waits(), {"cpu": 2}], counters=counters, meta={"cpus": 3, "nodes": {"0": [0, 1, 2]}}
    )
    report.show("axis=cpu&cells=120-150,1-1")
    assert report.figures["rows"] == ["1"]
    assert "1,204 waits were lost" in report.text("#selection-losses")
    report.show("axis=cpu&cells=120-150,0-0")
    assert "No wait was lost in this time range on these CPUs" in report.text("#selection-losses")
    report.show("axis=cpu&cells=120-150,0-2")
    assert "1,211 waits were lost" in report.text("#selection-losses")
    box = report.page.locator("#heatmap .nsewdrag").bounding_box()
    assert box
    for cpu, said in enumerate(("7 waits lost", "1,204 waits lost", "")):
        y = box["y"] + (cpu + 0.5) / 3 * box["height"]
        report.page.mouse.move(box["x"] + 0.45 * box["width"], y)
        report.until(lambda cpu=cpu: report.tip[:1] == [f"CPU {cpu}"])
        assert said in report.text("#tip")
        assert (" lost in a loss interval" in report.text("#tip")) == bool(said)
    # Hatched are the rows of CPUs 0 and 1, the upper two.
    top = report.page.locator("#heatmap .nsewdrag").evaluate("n => n.getBoundingClientRect().y")
    hatched = [
        report.page.locator("#heatmap .shapelayer path").nth(i).bounding_box() for i in (0, 1)
    ]
    for drawn in hatched:
        assert drawn
        assert drawn["y"] == pytest.approx(top, abs=8)
        assert drawn["height"] == pytest.approx(box["height"] * 2 / 3, abs=8)
    report.show("")
    report.page.mouse.move(box["x"] + 0.45 * box["width"], box["y"] + 0.5 * box["height"])
    report.until(lambda: "1,211 waits lost" in report.text("#tip"))


def test_hostile_names_are_inert(open_report: Callable[..., Report]) -> None:
    rows = waits(600)
    for i, row in enumerate(rows):
        name = HOSTILE[i % len(HOSTILE)]
        row |= {"cgroup": name, "comm": name, "culprit_comm": name}
    frames = [f | {"name": HOSTILE[i]} for i, f in enumerate(FRAMES)]
    meta = {"host": HOSTILE[0], "kernel": HOSTILE[1], "limits": list(HOSTILE)}
    meta["command_line"] = ["sltrace", *HOSTILE]
    report = open_report(rows, stacks=STACKS, frames=frames, meta=meta)
    report.page.select_option("#axis", "cgroup")
    report.drag(0.1, 0.1, 0.9, 0.9)
    report.page.hover("#heatmap .nsewdrag", position={"x": 200, "y": 100})
    report.page.locator("#flame-table summary").click()
    assert report.page.evaluate("window.pwned") is None
    assert report.page.locator("body img, body a:not(.skip):not(.modebar-btn), b b").count() == 0
    text = report.page.locator("body").inner_text()
    assert HOSTILE[0] in text
    assert "\\u202egpj.exe\\u2066\\x1b[31m\\x0a" in text
    assert not set(text) & {"\u202e", "\u2066", "\x1b"}
    ticks = report.page.locator("#heatmap .ytick text").all_text_contents()
    assert any(tick.startswith("<img ") for tick in ticks)
    assert any(tick.startswith("<!--") for tick in ticks)
    assert report.page.locator("#heatmap .ytick a").count() == 0
    assert report.page.evaluate("document.documentElement.scrollWidth") == 1400
    longest = report.page.locator("#tables td .name[title^=nnn]").first
    assert len(longest.inner_text()) <= 36
    assert len(longest.get_attribute("title") or "") == 4096


def test_a_trace_with_histograms_only(open_report: Callable[..., Report]) -> None:
    low = 1 << 20
    both = {"start_ns": SECOND, "end_ns": 2 * SECOND, "cgroup_id": 1, "cgroup": "/a"}
    both |= {"policy": "OTHER", "kind": "runq_wakeup", "count": 5}
    report = open_report(
        [],
        histograms=[both | {"bucket": 112, "low_ns": low}],
        histogram_sums=[both | {"sum_ns": 5 * low}],
        meta={"histogram_only": True},
    )
    assert report.figures["count"] == 5
    assert "histograms only" in report.text("#flame-note")
    assert report.page.is_disabled("#blame")
    assert {"/a", "woken"} <= set(report.frames)
    report.show("cells=0-60,0-1&with=0-90,0-2")
    for width in (1200, 1400):
        report.page.set_viewport_size({"width": width, "height": 1000})
        cut = report.page.locator("#figures b").evaluate_all(
            "all => all.filter(b => b.scrollWidth > b.clientWidth + 1).length"
        )
        assert cut == 0


def test_a_trace_of_long_waits_says_so_where_the_percentiles_are(
    open_report: Callable[..., Report],
) -> None:
    report = open_report([{"wait_ns": 200_000}], meta={"min_latency_ns": 100_000})
    assert report.text("#figures .figures-title") == "The whole recording, waits of 100 µs or more"


def test_cgroups_in_place_of_stacks(open_report: Callable[..., Report]) -> None:
    report = open_report([{"cgroup": name} for name in ("h1:/a", "/b/c", "/", None)])
    assert {"h1:", "/a", "/b", "/c", "/", "unknown"} <= set(report.frames)


def test_a_trace_without_stacks_says_so(open_report: Callable[..., Report]) -> None:
    rows = [r | {"stack_kernel": None, "waker_stack_kernel": None} for r in waits(300)]
    report = open_report(rows)
    assert "no stacks" in report.text("#flame-note")
    # Nothing in it is the kernel's, or of a language.
    assert report.page.is_hidden("#keys-one")
    first = report.by_duckdb("cgroup = '/service-0'")[1]
    assert report.frames["/service-0"] == first


def test_an_empty_trace(open_report: Callable[..., Report]) -> None:
    report = open_report([])
    assert report.figures["count"] == 0
    assert "No waits" in report.text("#flame-status")
    assert "no waits" in report.text("#diagnosis-note")
    assert report.page.is_hidden("#kinds")
    assert report.page.locator("#diagnosis-note.fair").count() == 1


def test_one_wait_on_one_cpu(open_report: Callable[..., Report]) -> None:
    report = open_report([{}], meta={"cpus": 1})
    assert report.text("#recorded").endswith("1 CPU")
    assert report.page.locator("#heatmap .ytick").count() > 1
    # Of one cgroup, whose name would blame nobody.
    assert report.page.input_value("#blame") == "comm"
    for scale in ("log", "linear", "rank"):
        report.page.select_option("#scale", scale)
        lowest, highest, shade = report.page.evaluate(
            "() => { const {zmin, zmax, z} = document.getElementById('heatmap').data[0];"
            " return [zmin, zmax, Math.max(...z.flat())] }"
        )
        # As dark as can be, not as pale as nothing.
        assert lowest < highest == shade, scale
    report.page.select_option("#measure", "count")
    report.page.select_option("#scale", "linear")
    bar = report.page.evaluate("document.getElementById('heatmap').data[0].colorbar")
    assert (bar["tickvals"], bar["ticktext"]) == ([0, 1], ["0", "1"])


def test_rows_that_are_not_there_are_said(open_report: Callable[..., Report]) -> None:
    report = open_report([])
    report.show("axis=cgroup&cells=0-9,0-0")
    assert report.text("#figures .figures-title").startswith("Selected: no cgroups, 0 s to ")


def test_a_zoomed_frame_that_goes_ends_the_zoom(open_report: Callable[..., Report]) -> None:
    report = open_report(stacks=STACKS, frames=FRAMES)
    report.page.locator("#flame g.frame", has_text="futex_wait").click()
    assert report.page.is_enabled("#unzoom")
    report.page.select_option("#stack", "waker")
    assert "try_to_wake_up" in report.frames
    assert not report.page.is_enabled("#unzoom")


def test_a_long_table_by_keyboard_and_on_paper(open_report: Callable[..., Report]) -> None:
    report = open_report([{"cgroup": f"/c{i:02}"} for i in range(13)])
    table = report.page.locator("#tables .table", has_text="By cgroup")
    report.page.emulate_media(media="print")
    assert table.inner_text().endswith("and 3 more")
    report.page.emulate_media(media="screen")
    assert "and 3 more" not in table.inner_text()
    table.locator(".more").press("Enter")
    assert table.locator("tbody tr").count() == 13
    assert report.page.evaluate("document.activeElement.textContent").startswith("/c10")
    report.page.emulate_media(media="print")
    assert "more" not in table.inner_text()


def test_paper_has_the_notes_and_whole_tables(open_report: Callable[..., Report]) -> None:
    names = [f"/kubepods.slice/pod-{i:02}/of-a-long-name" for i in range(9)]
    rows = [
        {"cgroup": names[i], "culprit_cgroup": names[j], "culprit_tid": 7, "culprit_ns": 900}
        for i in range(9)
        for j in range(9)
    ]
    report = open_report([*rows, {"kind": "gil"}])
    report.page.emulate_media(media="print")
    report.page.set_viewport_size({"width": 680, "height": 900})
    assert "sltrace blame" in report.text("#blame-note")
    assert report.page.is_visible("#blame-note")
    assert not report.page.is_visible("#flame-help")
    assert "Drag to select" not in report.text("#heat-help")
    right = report.page.locator("#blame-view table").evaluate(
        "table => table.getBoundingClientRect().right"
    )
    assert right <= 680


def test_a_part_that_cannot_be_read_is_a_loss(tmp_path: Path) -> None:
    path = make_trace(tmp_path, waits(10), counters=[{"cpu": 0, "name": "switches", "value": 9}])
    (segment,) = (path / "counters").iterdir()
    segment.write_bytes(segment.read_bytes()[:20])
    trace = Trace.open(path)
    said = facts(trace, build_cube(trace))["losses"]
    assert said == {"look": "bad", "sentence": "1 part of the trace cannot be read."}


def test_the_heatmap_follows_the_window(open_report: Callable[..., Report]) -> None:
    report = open_report(waits(100))

    def fits(width: int) -> bool:
        whole, drawn, room = report.page.locator("#heatmap").evaluate(
            "node => [document.documentElement.scrollWidth,"
            " node.querySelector('svg').clientWidth, node.clientWidth]"
        )
        return bool(whole == width and drawn == room)

    # Zooming in the browser changes both sizes, as this does.
    for width, height in ((1100, 700), (683, 500), (320, 800), (1400, 1000)):
        report.page.set_viewport_size({"width": width, "height": height})
        report.until(lambda width=width: fits(width))
    room = report.page.evaluate("document.getElementById('heatmap').clientWidth")
    report.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert report.page.evaluate("document.getElementById('heatmap').layout.width") <= 640
    report.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert report.page.evaluate("document.getElementById('heatmap').layout.width") == room


def test_dark_and_back(open_report: Callable[..., Report]) -> None:
    report = open_report(scheme="dark")

    def brightness() -> int:
        colour = report.page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, colour[4:-1].split(", ")))

    assert brightness() < 150
    report.page.click("#theme")
    assert brightness() > 650
    report.page.emulate_media(media="print")
    assert not report.page.is_visible("#toolbar")


def test_flame_graph_by_keyboard_and_search(open_report: Callable[..., Report]) -> None:
    report = open_report(stacks=STACKS, frames=FRAMES)
    report.page.focus("#flame")
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        report.page.keyboard.press(key)
    leaves = {"futex_wait", "pipe_read"} & set(report.frames)
    assert len(leaves) == 1
    report.page.keyboard.press("Escape")
    report.page.keyboard.press("Escape")
    assert {"futex_wait", "pipe_read"} <= set(report.frames)
    report.page.fill("#search", "FUTEX")
    assert report.page.locator("#flame g.match").count() == 1
    share = 100 * report.by_duckdb("stack_kernel = 1")[1] / report.by_duckdb()[1]
    assert f"{share:.1f} %" in report.text("#flame-status")
