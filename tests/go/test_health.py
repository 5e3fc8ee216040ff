"""Findings and windows of traces made by hand, with a known answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sltrace.analysis.golang.findings import findings
from sltrace.analysis.golang.health import windows
from tests.support.gotraces import made, waited
from tests.support.traces import SECOND


def test_a_backlog_names_the_stack_that_waited_longest(tmp_path: Path) -> None:
    at = [SECOND + i * SECOND // 10 for i in range(30)]
    gauges = [
        {"ns": ns, "pid": 100, "name": name, "item": None, "value": value}
        for ns in at
        for name, value in (("gomaxprocs", 1.0), ("runq_local", 40.0))
    ]
    rows = [
        waited("goroutine", ns, reason="sleep", stack_runtime=stack, end_ns=2 * SECOND)
        for stack, ns in ((12, 10), (11, 500), (12, 20), (12, 30))
    ]
    trace = made(tmp_path, rows, gauges=gauges)
    (found,) = findings(trace)
    assert "as in main.start" in found.sentence
    assert found.evidence["by_reason"][0]["total"] == 560


def test_a_backlog_that_comes_and_goes_is_no_time_of_idle_ps(tmp_path: Path) -> None:
    """None is idle while goroutines are queued, though both are in each of the seconds."""
    gauges = [
        {"ns": SECOND + i * SECOND // 10, "pid": 100, "name": name, "item": None, "value": value}
        for i in range(30)
        for name, value in (
            ("gomaxprocs", 2.0),
            ("runq_local", 0.0 if i % 10 else 400.0),
            ("idle_ps", 2.0 if i % 10 else 0.0),
        )
    ]
    (found,) = findings(made(tmp_path, gauges=gauges))
    assert (
        "up to 20 goroutines were queued per P, on average over a second, in 3 " in found.sentence
    )
    assert "meanwhile 0% of the Ps were idle" in found.sentence


def test_a_leak_only_grows(tmp_path: Path) -> None:
    def scans(counts: list[int]) -> list[dict[str, Any]]:
        return [
            {"ns": i * SECOND, "source": "wall", "pid": 100, "state": "waiting", "reason": "select",
             "count": n, "stack_runtime": 11}
            for i, n in enumerate(counts)
        ]  # fmt: skip

    (found,) = findings(made(tmp_path, samples=scans([10, 60, 110, 160, 210])))
    assert found.name == "goroutine_leak"
    assert found.evidence["where"] == "main.waits"
    assert "main.waits (select), started by main.start, grew from 10 to 210" in found.sentence
    # The last but one is a pool that has been filled.
    filled = [10, 500, 1000, 1500, 2000, 2000, 2000]
    for healthy in ([10, 200, 20, 210, 30, 220], [500, 500, 501, 500, 500], filled, [10, 210]):
        assert not findings(made(tmp_path, samples=scans(healthy)))


def scans_of(scans: list[dict[int, int]]) -> list[dict[str, Any]]:
    """Rows of `samples`, a scan each second: by stack how many goroutines wait there."""
    return [
        {"ns": i * SECOND, "source": "wall", "pid": 100, "state": "waiting", "reason": "select",
         "count": n, "stack_runtime": stack}
        for i, counts in enumerate(scans)
        for stack, n in counts.items()
    ]  # fmt: skip


def test_counts_that_stray_by_chance_are_no_leak(tmp_path: Path) -> None:
    """Of 30,000 goroutines 2,048 are looked at: what a quarter of them is thought to be strays."""

    def found_of(counts: list[int]) -> list[Any]:
        scans = [{11: n, 12: 30_000 - n} for n in counts]
        return [f.evidence["counts"] for f in findings(made(tmp_path, samples=scans_of(scans)))]

    assert not found_of([7179, 7414, 7458, 7600])
    assert not found_of([7179, 7414, 7458, 7600, 7700, 7810])
    # What grows by far more than that is one, and so is what grows where all are looked at.
    leak = [3000, 5000, 7000, 9000, 11_000]
    assert found_of(leak) == [leak]
    few = [{11: n, 12: 900} for n in (500, 560, 620, 680, 740)]
    (found,) = findings(made(tmp_path, samples=scans_of(few)))
    assert found.evidence["counts"] == [500, 560, 620, 680, 740]


def test_a_stack_that_was_gone_between_is_no_leak(tmp_path: Path) -> None:
    """Ever larger batches, each of which ends: a scan that does not have it says that it fell."""
    batches = [{12: 5} | ({11: n} if n else {}) for n in (150, 0, 300, 0, 500, 0, 1500)]
    assert not findings(made(tmp_path, samples=scans_of(batches)))
    # One that begins late is a leak all the same.
    late = [{12: 5} | ({11: n} if n else {}) for n in (0, 0, 10, 60, 110, 160, 210)]
    (found,) = findings(made(tmp_path, samples=scans_of(late)))
    assert found.evidence["counts"] == [10, 60, 110, 160, 210]


def test_time_lost_with_a_p_is_that_of_threads_that_held_one(tmp_path: Path) -> None:
    ps = [{"ns": 0, "pid": 100, "name": "gomaxprocs", "value": 2.0}]
    lost = {"kind": "runq_preempt", "end_ns": 5 * SECOND, "wait_ns": 4 * SECOND, "queued": 3}
    assert not findings(made(tmp_path, [lost], gauges=ps))
    # 4 s of 2 Ps' 10 s each.
    (found,) = findings(made(tmp_path, [{**lost, "held_p": 0}] * 2, gauges=ps))
    assert found.name == "lost_p"
    assert found.evidence["preempted_ns"] == 8 * SECOND
    assert found.evidence["queued_behind_ns"] == 24 * SECOND


def test_ps_that_were_there_for_longer_count_for_more(tmp_path: Path) -> None:
    """A busy one of 8, then the only one: 2 of 9, as the runtime's /cpu/classes has it."""
    gauges = [
        {"ns": ns * SECOND, "pid": 100, "name": name, "value": value}
        for ns, ps, idle, queued in ((1, 8.0, 7.0, 0.0), (2, 1.0, 0.0, 18.0))
        for name, value in (("gomaxprocs", ps), ("idle_ps", idle), ("runq_local", queued))
    ]
    (window,) = windows(made(tmp_path, gauges=gauges), 10 * SECOND)
    assert window.p_utilisation == pytest.approx(2 / 9)
    assert window.runnable_per_p == pytest.approx(2)


def test_windows_count_idle_ps_and_waits(tmp_path: Path) -> None:
    gauges = [
        {"ns": t * SECOND, "pid": 100, "name": name, "value": value}
        for t in (1, 2, 6)
        for name, value in (("gomaxprocs", 4.0), ("idle_ps", float(t)), ("spinning_ms", 1.0),
                            ("runq_local", 0.0), ("runq_global", 0.0))
    ]  # fmt: skip
    trace = made(tmp_path, [waited("goroutine", 100), waited("goroutine", 300)], gauges=gauges)
    first, second = windows(trace, 5 * SECOND)
    assert first.p_utilisation == pytest.approx(1 - 1.5 / 4)
    assert (first.waits, first.mean_wait_ns, first.spinning) == (2, 200, 1.0)
    assert (second.waits, second.start_ns) == (0, 5 * SECOND)
