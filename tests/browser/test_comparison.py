"""The page of `sltrace diff -o`: its numbers are those of `diff --json`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sltrace.cli.main import run
from sltrace.trace.reader import Trace
from tests.browser.album import Album
from tests.browser.report import FRAMES, HOSTILE, STACKS, UNITS, Report, waits
from tests.support.profiles import make_pprof
from tests.support.traces import META, SECOND, make_trace

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.browser.pages import Pages

pytestmark = pytest.mark.browser

Compared = Callable[..., tuple["Page", dict[str, Any]]]


@pytest.fixture
def compared(
    pages: Pages, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Compared]:
    reports: list[Report] = []

    def opened(a: Path, b: Path, *options: str) -> tuple[Page, dict[str, Any]]:
        file = tmp_path / "page.html"
        assert run(["diff", str(a), str(b), "--json", "-o", str(file), *options]) == 0
        reports.append(Report(pages.take("light", 1366, 768), file.as_uri(), Trace.open(b)))
        return reports[-1].page, json.loads(capsys.readouterr().out)

    yield opened
    for report in reports:
        report.close(pages)
        report.good()


def trace(folder: Path, rows: list[dict[str, Any]], **tables: Any) -> Path:
    folder.mkdir()
    return make_trace(folder, rows, stacks=STACKS, frames=FRAMES, **tables)


def slower() -> list[dict[str, Any]]:
    """As `waits`, but one cgroup waits three times as long, in one place."""
    return [
        row | {"wait_ns": row["wait_ns"] * 3, "stack_kernel": 2}
        if row["cgroup"][-1] == "1"
        else row
        for row in waits()
    ]


def number(text: str) -> float | None:
    """What is written as `1.5 ms`, `−1,204.5`, or not at all."""
    found = re.fullmatch(r"([+−]?)([\d,.]+) ?(ns|µs|ms|s)?", text)
    if not found:
        return None
    sign, digits, unit = found.groups()
    return (-1 if sign == "−" else 1) * float(digits.replace(",", "")) * UNITS[unit or "ns"]


def lines(page: Page, table: str) -> dict[str, list[str]]:
    found = page.locator(f"{table} tbody tr").evaluate_all(
        "rows => rows.map(r => [...r.cells].map(c => c.textContent))"
    )
    return {name: values for name, *values in found}


def assert_shown(values: list[str], change: dict[str, Any]) -> None:
    """Three digits are shown, of counts one after the point."""
    wanted = [change["a"], change["b"], change["difference"], change["low"], change["high"]]
    between = values[3].split(" to ") if values[3] else ["", ""]
    for text, value in zip([*values[:3], *between], wanted, strict=True):
        assert number(text) == (
            pytest.approx(value, rel=0.006, abs=0.51) if value is not None else None
        )
    assert bool(values[5]) == bool(change["certain"] and change["difference"])


def test_its_numbers_are_those_of_the_command(
    pages: Pages, compared: Compared, tmp_path: Path
) -> None:
    page, said = compared(trace(tmp_path / "a", waits()), trace(tmp_path / "b", slower()))
    album = Album(pages.take(origin="blank"))
    album.check(page, "comparison-light")
    pages.give_back(album.blank, "blank")
    names = ["waits / second", "time lost / second", "p50", "p90", "p99", "p99.9", "longest"]
    for name, changes in said["classes"].items():
        page.select_option("#class", name)
        shown = lines(page, "#figures")
        assert list(shown) == names
        for values, change in zip(shown.values(), changes, strict=True):
            assert_shown(values, change)
        total = next(c for c in changes if c["name"] == "total_ns")
        flame = page.locator("#flame").evaluate(
            "node => [+node.dataset.value, +node.dataset.other]"
        )
        assert flame == [pytest.approx(total[s] * said[s]["size"]) for s in "ab"]
        curve = page.locator("#curves-table td").evaluate_all("all => all.map(c => c.textContent)")
        counts = next(c for c in changes if c["name"] == "waits")
        # All waits are at least as long as the first point.
        assert [number(c.split(" per ")[0]) for c in curve[1:3]] == [
            pytest.approx(counts[s], rel=0.006) for s in "ab"
        ]
    for group in said["groups"]:
        shown = lines(page, f"#groups [data-by={group['by']}]")
        assert len(shown) == len(group["changes"])
        for values, change in zip(shown.values(), group["changes"], strict=True):
            assert_shown(values, change)
    assert "Slower" in page.inner_text("#verdict")
    certain = [
        change
        for name, changes in said["classes"].items()
        if name != "blocked"
        for change in changes
        if change["certain"] and change["name"] in ("total_ns", "p50_ns", "p99_ns", "p999_ns")
    ]
    shown = page.locator("#verdict .finding").all_inner_texts()
    assert len(shown) == min(len(certain), 5)
    assert (f"and {len(certain) - 4} more" in shown[-1]) == (len(certain) > 4)
    assert page.is_hidden("#no-verdict")
    page.select_option("#class", "runq")
    page.select_option("#order", "leaf")
    url = page.url
    assert "order=leaf" in url
    page.focus("#flame")
    for key in ("ArrowDown", "Enter"):
        page.keyboard.press(key)
    assert page.is_enabled("#unzoom")
    from axe_playwright_python.sync_playwright import Axe

    for _ in range(2):
        assert Axe().run(page).response["violations"] == []
        page.click("#theme")


def test_a_trace_against_itself_is_zero(compared: Compared, tmp_path: Path) -> None:
    same = trace(tmp_path / "a", waits(1500))
    page, said = compared(same, same)
    assert page.is_visible("#no-verdict")
    for name in said["classes"]:
        page.select_option("#class", name)
        for values in lines(page, "#figures").values():
            assert values[0] == values[1]
            assert number(values[2]) == 0
        for compare in ("rate", "share"):
            page.select_option("#compare", compare)
            fills = page.locator("#flame g.both rect").evaluate_all(
                "all => all.map(r => r.style.fill)"
            )
            assert len(fills) > 3
            assert all(" 0%" in fill for fill in fills)


def test_what_differs_in_the_tables_alone_is_not_called_chance(
    compared: Compared, tmp_path: Path
) -> None:
    """One cgroup waits as much longer as the other waits shorter."""
    lengths = {"a": (4_000_000, 2_000_000), "b": (2_000_000, 4_000_000)}
    sides = [
        trace(
            tmp_path / side,
            [
                {"end_ns": i * SECOND // 100, "wait_ns": ns, "cgroup": cgroup}
                for i in range(1, 1000)
                for cgroup, ns in zip(("/web", "/batch"), lengths[side], strict=True)
            ],
        )
        for side in "ab"
    ]
    page, said = compared(*sides)
    assert not any(c["certain"] and c["difference"] for c in said["classes"]["runq"])
    assert lines(page, "#groups [data-by=cgroup]")["/web"][5]
    assert page.inner_text("#no-verdict").endswith("what does is marked in the tables below.")
    assert page.locator("#no-verdict.fair").count() == 1


@pytest.mark.parametrize("name", ["constructor", "toString", "__proto__"])
def test_kinds_that_are_called_what_every_object_has(
    compared: Compared, tmp_path: Path, name: str
) -> None:
    rows = [{"end_ns": i * SECOND, "wait_ns": 5000, "kind": name} for i in range(1, 9)]
    page, said = compared(trace(tmp_path / "a", rows), trace(tmp_path / "b", [*rows, rows[0]]))
    assert page.is_hidden("#failure")
    assert page.locator("#class option").all_inner_texts() == list(said["classes"]) == [name]
    assert list(lines(page, "#groups [data-by=kind]")) == [name]
    assert page.inner_text("#flame-title") == f"Where they waited, {name}: B against A"


def test_profiles_stand_beside_the_side_they_were_taken_in(
    compared: Compared, tmp_path: Path
) -> None:
    rows = [{"end_ns": i * SECOND, "wait_ns": 4_000_000, "stack_kernel": 1} for i in range(1, 9)]
    began = META["clock"]["start_unix_ns"]
    later = META["clock"] | {"start_unix_ns": began + 100 * SECOND}
    a, b = (
        trace(tmp_path / n, rows, meta={"clock": c})
        for n, c in (("a", META["clock"]), ("b", later))
    )
    options = []
    for i, (start, ns) in enumerate([(began, 30), (began + 100 * SECOND, 90), (0, 1000)]):
        stacks = {("do_syscall", "futex_wait"): [1, ns * 1_000_000]}
        file = tmp_path / f"{i}.pb"
        file.write_bytes(make_pprof(stacks, start_unix_ns=start, duration_ns=5 * SECOND))
        options += ["--pprof", str(file)]
    page, _ = compared(a, b, *options)
    told = "all => Object.fromEntries(all.map(g => [g.textContent, {...g.dataset}]))"
    shown = page.locator("#flame g.frame").evaluate_all(told)
    assert list(shown) == ["all", "do_syscall", "futex_wait"]
    for frame in shown.values():
        found = [int(frame[n]) for n in ("value", "ran", "other", "otherRan")]
        assert found == [62_000_000, 30_000_000, 122_000_000, 90_000_000]
    note = page.inner_text("#flame-note")
    assert "0.pb: 30.0 ms of cpu" in note.partition("B: ")[0]
    assert "1.pb: 90.0 ms of cpu" in note.partition("B: ")[2]
    assert "2.pb" not in note
    page.select_option("#profile", "without")
    assert "profile=without" in page.url
    assert page.is_hidden("#flame-note")
    assert page.locator("#flame").get_attribute("data-value") == "32000000"


def test_hostile_names(compared: Compared, tmp_path: Path) -> None:
    rows = waits(600)
    for i, row in enumerate(rows):
        row |= {"cgroup": HOSTILE[i % len(HOSTILE)], "comm": HOSTILE[i % len(HOSTILE)]}
    frames = [f | {"name": HOSTILE[i]} for i, f in enumerate(FRAMES)]
    (tmp_path / "a").mkdir()
    one = make_trace(tmp_path / "a", rows, stacks=STACKS, frames=frames, meta={"host": HOSTILE[0]})
    page, _ = compared(one, trace(tmp_path / "b", [{"end_ns": SECOND}]))
    page.locator("#flame-table summary").click()
    assert page.evaluate("window.pwned") is None
    assert not set(page.inner_text("body")) & {"\u202e", "\u2066", "\x1b"}
    assert HOSTILE[0] in page.inner_text("#groups")


def test_paper_has_the_legend_and_the_kind_of_waits(compared: Compared, tmp_path: Path) -> None:
    page, _ = compared(trace(tmp_path / "a", waits(300)), trace(tmp_path / "b", slower()))
    page.emulate_media(media="print")
    assert page.is_visible(".key.more")
    assert page.is_hidden("#flame-help")
    assert page.inner_text("#curves-title") == "How often they waited how long, run queue"


def test_what_is_missing_looks_as_bad_as_it_is(compared: Compared, tmp_path: Path) -> None:
    lost = {"cpu": 1, "name": "ring_full", "class": "loss", "value": 5}
    lost |= {"start_ns": 4 * SECOND, "end_ns": 5 * SECOND}
    one = trace(tmp_path / "a", waits(300), counters=[lost])
    page, _ = compared(one, trace(tmp_path / "b", waits(300)), "--only", "policy=FIFO")
    looks = page.locator("#sides .notice > p:last-child").evaluate_all(
        "all => all.map(p => [p.className, p.textContent.slice(0, 27)])"
    )
    assert looks == [
        ["bad", "5 waits lost on CPU 1 betwe"],
        ["good", "None of these waits was los"],
    ]


def test_two_sides_without_waits(compared: Compared, tmp_path: Path) -> None:
    page, _ = compared(trace(tmp_path / "a", []), trace(tmp_path / "b", []))
    assert page.inner_text("#no-verdict") == "Neither side has waits."
    assert page.inner_text("#curves-title") == "How often they waited how long"
    assert page.inner_text("#flame-title") == "Where they waited: B against A"


def test_long_names_cut_no_verdict_off(compared: Compared, tmp_path: Path) -> None:
    long = [row | {"cgroup": row["cgroup"] + "n" * 50} for row in waits(600)]
    fast = [row | {"wait_ns": row["wait_ns"] // 9} for row in long]
    page, _ = compared(trace(tmp_path / "a", long), trace(tmp_path / "b", fast))
    for width in (1366, 1024):
        page.set_viewport_size({"width": width, "height": 768})
        tables = page.locator("#groups .table").evaluate_all(
            "all => all.map(t => t.scrollWidth - t.clientWidth)"
        )
        # A pixel is rounding.
        assert max(tables) <= 1
    assert page.locator("#groups [data-by=cgroup] b", has_text="faster").count()


def test_wide_bands_stay_within_the_picture(compared: Compared, tmp_path: Path) -> None:
    bursts = [row | {"end_ns": row["end_ns"] // 8 * 8 // 9} for row in waits(900)]
    page, _ = compared(trace(tmp_path / "a", bursts), trace(tmp_path / "b", waits(40)))
    top, highest = page.locator("#curves").evaluate(
        """node => {
            const up = (e) => e.getBoundingClientRect().top;
            const bands = [...node.querySelectorAll(".spread")];
            return [up(node.querySelector("svg")) + 18, Math.min(...bands.map(up))];
        }"""
    )
    assert highest >= top


def test_the_picture_of_few_waits_has_ticks_and_none_is_cut(
    compared: Compared, tmp_path: Path
) -> None:
    one = {"wait_ns": 200_000_000, "end_ns": 5 * SECOND}
    page, _ = compared(trace(tmp_path / "a", [one]), trace(tmp_path / "b", [one, one]))
    ticks, widest = page.locator("#curves svg").evaluate(
        """svg => {
            const right = (e) => e.getBoundingClientRect().right;
            const ticks = [...svg.querySelectorAll("text:not(.side)")];
            return [ticks.map((t) => t.textContent), Math.max(...ticks.map(right)) - right(svg)];
        }"""
    )
    assert sum(tick.endswith(" ms") for tick in ticks) > 1
    assert sum(not tick.endswith(" ms") for tick in ticks) > 1
    assert widest <= 0
