"""Time on the CPU, from profiles, beside the waits."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sltrace.profiles.pprof import Profile
from tests.browser.report import FRAMES, HOSTILE, STACKS, Report
from tests.browser.test_traces import traced
from tests.support.profiles import make_pprof, read_pprof
from tests.support.traces import META, SECOND, WAIT

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


def both(report: Report) -> dict[str, tuple[int, int, int, int]]:
    """By label all of a frame and what of it was on the CPU, in A and in B."""
    found = report.page.locator("#flame g.frame").evaluate_all(
        "all => all.map(g => [g.textContent, ...['value', 'ran', 'other', 'otherRan']"
        ".map(name => +(g.dataset[name] || 0))])"
    )
    return {name: (a, ran, b, other) for name, a, ran, b, other in found}


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
    report.page.locator("#flame-table summary").click()
    report.page.wait_for_selector("#flame-table tr")
    cells = "row => [...row.cells].map(c => c.textContent)"
    table = report.page.locator("#flame-table tr").evaluate_all(f"rows => rows.map({cells})")
    assert table[0] == ["frame", "ends here", "in all", "of it ran", "share"]
    assert {row[0]: row[3] for row in table}["do_syscall"] == "120 s"
    report.page.select_option("#split", "kind")
    assert drawn(report)["on CPU (profile)"][0] == 120 * SECOND + 5
    assert drawn(report)["all"][0] == waited + 120 * SECOND + 5


def test_labels_follow_the_selection(open_report: Callable[..., Report], tmp_path: Path) -> None:
    """Each sample's value is a power of two: their sum tells which were let in."""
    rows = traced()
    ids = sorted({row["trace_id"] for row in rows})
    names = [(("work", f"f{i}"), [1, 1 << i], {"trace_id": id_}) for i, id_ in enumerate(ids)]
    thread = (("work",), [1, 1 << 45], {"thread_name": "other"})
    cpu = make_pprof(
        {("work",): [1, 1 << 44]},
        labelled=[*names, thread],
        start_unix_ns=META["clock"]["start_unix_ns"],
        duration_ns=4 * SECOND,
    )
    (tmp_path / "cpu.pb").write_bytes(cpu)
    report = open_report(
        [*rows, WAIT | {"comm": "other", "end_ns": 10 * SECOND}],
        profiles=[read_pprof(str(tmp_path / "cpu.pb"))],
    )

    def ran() -> int:
        return drawn(report)["all"][1]

    def traces(having: str, parameters: list[int]) -> int:
        found = report.trace.sql(
            "SELECT trace_id FROM waits WHERE trace_id <> '' GROUP BY 1 HAVING " + having,
            parameters,
        )
        return sum(1 << ids.index(i) for i in found.column(0).to_pylist())

    assert ran() == (1 << len(ids)) - 1 + (1 << 44) + (1 << 45)
    first_half = (0, 0)
    # Its first 4 s are in it whole, so is whatever ran then; then what ran for traces of the time.
    for first, last, whole in ((0, 149, True), (90, 180, False)):
        report.show(f"axis=policy&cells={first}-{last},0-1")
        window = [report.figures["from"], report.figures["to"]]
        during = traces("max(end_ns) > ? AND min(end_ns - wait_ns) < ?", window)
        assert 0 < during < (1 << len(ids)) - 1
        assert ran() == ((1 << len(ids)) - 1 + (1 << 44) + (1 << 45) if whole else during)
        assert drawn(report)["all"][0] - ran() == report.figures["ns"]
        first_half = drawn(report)["all"] if whole else first_half
    assert "Left out" in report.text("#flame-note")
    # Of two selections both.
    alone = drawn(report)["all"]
    report.show("axis=policy&cells=0-149,0-1&with=90-180,0-1")
    assert both(report)["all"] == first_half + alone
    assert "In A: " in report.text("#flame-note")
    assert "In B: " in report.text("#flame-note")
    report.page.hover("#flame g.frame")
    tip = report.text("#tip")
    a, b = (re.search(rf"^{side} .*: waited .*, ran (.*)$", tip, re.M) for side in "AB")
    assert a
    assert b
    assert a[1] != b[1]
    report.page.select_option("#split", "kind")
    ran_only = both(report)["on CPU (profile)"]
    assert (ran_only[0], ran_only[2]) == (first_half[1], alone[1])
    report.page.select_option("#profile", "without")
    assert both(report)["all"] == (first_half[0] - first_half[1], 0, alone[0] - alone[1], 0)
    report.show("axis=bucket&cells=0-299,1-2")
    digits = [n[-1] for n in report.figures["rows"] if n.startswith("ids")]
    assert digits
    wanted = sum(1 << i for i, id_ in enumerate(ids) if id_[-1] in digits)
    assert ran() == wanted + (1 << 44) + (1 << 45)
    assert "by time alone" in report.text("#flame-note")
    report.show("axis=comm&cells=0-299,1-1")
    assert report.figures["rows"] == ["web"]
    assert ran() == (1 << len(ids)) - 1 + (1 << 44)
    report.page.click("#clear")
    first = report.page.locator("#traces .trace-id").first
    first.click()
    number = ids.index(first.inner_text())
    assert f"f{number}" in report.text("#traces > .table:last-child")
    report.page.select_option("#profile", "without")
    assert ran() == 0
    assert "profile=without" in report.page.url


def test_own_samples_are_where_they_were_taken(
    open_report: Callable[..., Report],
) -> None:
    """One sample every 10 ms, its weight the power of two of its second."""
    samples = [
        {"ns": i * SECOND // 100, "source": "cpu", "tid": 100, "stack_kernel": 1,
         "weight_ns": 1 << i // 100}
        for i in range(1000)
    ]  # fmt: skip
    rows = [WAIT | {"stack_kernel": 1, "end_ns": i * SECOND} for i in range(11)]
    report = open_report(rows, stacks=STACKS, frames=FRAMES, samples=samples)
    assert "this recording's CPU samples of Python processes" in report.text("#flame-note")
    for cells in ("0-299", "60-179", "31-33"):
        report.visit(f"{report.url}#axis=policy&cells={cells},0-0")
        inside = [report.figures["from"], report.figures["to"]]
        wanted = report.trace.sql(
            "SELECT sum(weight_ns)::BIGINT AS n FROM samples WHERE ns >= ? AND ns < ?", inside
        )["n"][0].as_py()
        assert drawn(report)["futex_wait"][1] == wanted


def test_numbers_of_goroutines_are_not_time(
    open_report: Callable[..., Report], tmp_path: Path
) -> None:
    types = [("goroutine", "count")]
    stacks = {("main.serve", "chan receive"): [30], ("main.serve", "select"): [12]}
    (tmp_path / "goroutine.pb").write_bytes(make_pprof(stacks, types))
    report = open_report(
        stacks=STACKS, frames=FRAMES, profiles=[read_pprof(str(tmp_path / "goroutine.pb"))]
    )
    assert drawn(report)["all"] == (report.by_duckdb()[1], 0)
    assert report.page.is_hidden("#profile-label")
    report.page.select_option("#stack", "profile-0")
    assert {n: v for n, (v, _) in drawn(report).items()} == {
        "all": 42, "main.serve": 42, "chan receive": 30, "select": 12,
    }  # fmt: skip
    assert "42 goroutines" in report.text("#flame-status")
    assert "not times" in report.text("#flame-note")
    url = report.page.url
    report.visit(url)
    assert drawn(report)["all"][0] == 42


def test_hostile_functions(open_report: Callable[..., Report], tmp_path: Path) -> None:
    report = open_report(profiles=[profile(tmp_path, {HOSTILE: [1, SECOND]})])
    report.page.locator("#flame-table summary").click()
    assert report.page.evaluate("window.pwned") is None
    assert not set(report.text("body")) & {"\u202e", "\u2066", "\x1b"}


OF_TRACE = """() => Profiles.ofTrace({
    ran: {profile: [0, 0, 0], stack: [0, 1, 2], owner: [0, 0, 0], value: [5, 7, 9]},
    profiles: [{on_cpu: true}], owner: {trace: [1]},
}, Trie.fromPaths([[0, 1], [0], [1]], ["work (svc.py)", "memcpy"], ["python", "native"]), 0)"""


def test_what_ran_for_a_trace_is_named_by_its_python_function(
    open_report: Callable[..., Report],
) -> None:
    report = open_report()
    assert report.page.evaluate(OF_TRACE) == [
        {"name": "memcpy", "ns": 9},
        {"name": "work (svc.py)", "ns": 7},
        {"name": "memcpy in work (svc.py)", "ns": 5},
    ]
