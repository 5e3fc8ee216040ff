"""Time on the CPU, from profiles, beside the waits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sltrace.profiles.pprof import Profile, read_pprof
from tests.browser.report import FRAMES, HOSTILE, STACKS, Report
from tests.support.profiles import make_pprof
from tests.support.traces import SECOND

pytestmark = pytest.mark.browser


def profile(folder: Path, stacks: dict[tuple[str, ...], list[int]]) -> Profile:
    path = folder / "cpu.pb"
    path.write_bytes(make_pprof(stacks))
    return read_pprof(str(path))


def drawn(report: Report) -> dict[str, tuple[int, int]]:
    """By label all of a frame, and what of it was on the CPU."""
    found = report.page.locator("#flame g.frame").evaluate_all(
        "all => all.map(g => [g.textContent, +g.dataset.value, +(g.dataset.ran || 0)])"
    )
    return {name: (value, ran) for name, value, ran in found}


def test_a_bar_says_how_long_it_ran_and_waited(
    open_report: Callable[..., Report], tmp_path: Path
) -> None:
    stacks = {("do_syscall", "copy_page"): [1, 90 * SECOND], ("do_syscall",): [1, 30 * SECOND]}
    report = open_report(
        stacks=STACKS, frames=FRAMES, profiles=[profile(tmp_path, {**stacks, ("idle",): [1, 5]})]
    )
    waited = report.by_duckdb()[1]
    frames = drawn(report)
    assert frames["all"] == (waited + 120 * SECOND + 5, 120 * SECOND + 5)
    assert frames["do_syscall"] == (waited + 120 * SECOND, 120 * SECOND)
    assert frames["copy_page"] == (90 * SECOND, 90 * SECOND)
    assert frames["futex_wait"] == (report.by_duckdb("stack_kernel = 1")[1], 0)
    assert "120 s of cpu" in report.text("#flame-note")
    report.page.hover("#flame g.frame:nth-child(2)")
    assert "ran 120 s" in report.text("#tip")
    report.page.select_option("#split", "kind")
    assert drawn(report)["on CPU (profile)"][0] == 120 * SECOND + 5
    assert drawn(report)["all"][0] == waited + 120 * SECOND + 5


def test_profiles_know_no_selection(open_report: Callable[..., Report], tmp_path: Path) -> None:
    report = open_report(
        stacks=STACKS, frames=FRAMES, profiles=[profile(tmp_path, {("work",): [1, SECOND]})]
    )
    report.drag(0.2, 0.1, 0.6, 0.9)
    assert drawn(report)["all"] == (report.by_duckdb(report.latency())[1], 0)
    assert "do not say when" in report.text("#flame-note")
    report.page.click("#clear")
    report.page.select_option("#profile", "without")
    assert drawn(report)["all"] == (report.by_duckdb()[1], 0)
    assert "profile=without" in report.page.url


def test_hostile_functions(open_report: Callable[..., Report], tmp_path: Path) -> None:
    report = open_report(profiles=[profile(tmp_path, {HOSTILE: [1, SECOND]})])
    report.page.locator("#flame-table summary").click()
    assert report.page.evaluate("window.pwned") is None
    assert not set(report.text("body")) & {"\u202e", "\u2066", "\x1b"}
