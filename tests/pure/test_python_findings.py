"""Findings of Python from rows made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sltrace.analysis.diagnosis import diagnose
from sltrace.analysis.meta import recorded_ns
from sltrace.analysis.python import report
from sltrace.analysis.python.report import python_report
from sltrace.cli.python import command
from sltrace.trace.reader import Trace
from tests.support.traces import SECOND, make_trace

PID, IN_C, IN_PYTHON = 100, 7, 8
HANDLER, SELECT = 1, 2


def frame(address: int, name: str) -> dict[str, Any]:
    return {
        "space": "python",
        "pid": PID,
        "address": address,
        "name": name,
        "module": "app.py",
        "file": "/srv/app.py",
        "line": 3,
        "language": "python",
    }


def requests(tid: int, *, poll_stack: int | None) -> list[dict[str, Any]]:
    """Ten a second, each of which sleeps for 50 ms."""
    row = {"pid": PID, "tid": tid}
    rows: list[dict[str, Any]] = []
    for number in range(1, 10):
        at = number * SECOND // 10
        handling = row | {"end_ns": at, "wait_ns": 50_000_000, "stack_runtime": HANDLER}
        polling = row | {"end_ns": at - 50_000_000, "wait_ns": 45_000_000}
        rows += [
            polling | {"kind": "blocked", "reason": "poll", "stack_runtime": poll_stack},
            handling | {"kind": "blocked", "reason": "sleep"},
            handling | {"kind": "loop", "reason": "busy period"},
        ]
    return rows


def test_what_a_trace_says_of_versions_and_ids_is_clean(tmp_path: Path) -> None:
    odd = "3.12\x1b]0;owned\x07"
    target = {"pid": PID, "runtime": "python", "version": odd, "level": 1}
    gil = {"pid": PID, "tid": 1, "kind": "gil", "trace_id": odd, "wait_ns": SECOND // 10}
    path = make_trace(tmp_path, [gil], targets=[target])
    shown = CliRunner().invoke(command, [str(path)])
    assert shown.exit_code == 0
    assert shown.output.count("\\x1b]0;owned\\x07") == 2
    assert "\x1b" not in shown.output


def test_threads_that_poll_outside_of_python_are_no_event_loops(tmp_path: Path) -> None:
    """Those of uWSGI wait in epoll for the next request, which may take its time."""
    stacks = [
        {"stack_id": s, "space": "python", "pid": PID, "addresses": [s]} for s in (HANDLER, SELECT)
    ]
    waits = [*requests(IN_C, poll_stack=None), *requests(IN_PYTHON, poll_stack=SELECT)]
    frames = [frame(HANDLER, "handler"), frame(SELECT, "select")]
    path = make_trace(tmp_path, waits, stacks=stacks, frames=frames)
    report = python_report(Trace.open(path))
    assert [loop.tid for loop in report.loops] == [IN_PYTHON]
    assert [(f.name, f"({IN_PYTHON})" in f.sentence) for f in report.findings] == [
        ("loop_blocked", True)
    ]


@pytest.mark.parametrize(
    ("path", "loops"),
    [("/srv/site/pyuwsgi.cpython-311-x86_64-linux-gnu.so", 0), ("/srv/site/uvloop/loop.so", 1)],
)
def test_a_server_in_c_that_python_called_is_no_event_loop(
    path: str, loops: int, tmp_path: Path
) -> None:
    """It waits within the frame of its caller, as an event loop in C does."""
    stacks = [
        {"stack_id": s, "space": "python", "pid": PID, "addresses": [s]} for s in (HANDLER, SELECT)
    ]
    frames = [frame(HANDLER, "handler"), frame(SELECT, "<module>")]
    mappings = [{"pid": PID, "start": 0, "end": 1, "offset": 0, "path": path, "build_id": ""}]
    waits = requests(IN_PYTHON, poll_stack=SELECT)
    made = make_trace(tmp_path, waits, stacks=stacks, frames=frames, mappings=mappings)
    report = python_report(Trace.open(made))
    assert len(report.loops) == len(report.findings) == loops


def test_where_no_process_was_looked_into_nothing_else_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of millions of waits that takes seconds."""

    def never(*_: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(report, "python_report", never)
    target = {"pid": 7, "runtime": "python", "why": "is no CPython"}
    path = make_trace(
        tmp_path,
        targets=[target],
        meta={"sources": {"python": {"refused": "no uprobes here"}}},
    )
    result = CliRunner().invoke(command, [str(path)])
    assert str(result.exception) == (
        f"{path} has no Python process that was looked into: no uprobes here; "
        "7, is no CPython; sltrace diagnose tells what their threads waited for"
    )


def test_the_quota_that_is_named_is_the_one_that_held_last(tmp_path: Path) -> None:
    target = {"pid": PID, "runtime": "python", "level": 1, "from_ns": 0}
    throttled = {"kind": "throttled", "pid": PID, "wait_ns": 9 * SECOND, "cgroup": "/web"}
    cgroups = [
        {"cgroup_id": 1, "quota_us": us, "period_us": period_us, "seen_ns": ns}
        for us, period_us, ns in ((20_000, 50_000, 2), (150_000, 100_000, 1))
    ]
    made = make_trace(tmp_path, [throttled], targets=[target], cgroups=cgroups)
    seen = python_report(Trace.open(made))
    (finding,) = seen.findings
    assert "the CPU quota of /web (at last 0.40 CPUs) was used up" in finding.sentence
    (quota,) = seen.quotas
    assert (quota.quota_us, quota.period_us, quota.quotas) == (20_000, 50_000, 2)


def test_of_several_quotas_the_one_that_was_waited_for_longest_is_named(tmp_path: Path) -> None:
    target = {"runtime": "python", "pid": PID, "level": 1, "from_ns": 0}
    throttled = {"kind": "throttled", "pid": PID, "cgroup": "/pod/c"}
    above = {"culprit_cgroup": "/pod", "culprit_cgroup_id": 2, "wait_ns": SECOND // 2}
    waits = [throttled | {"wait_ns": 8 * SECOND}, *[throttled | above] * 2]
    cgroups = [
        {"cgroup_id": number, "quota_us": us, "period_us": 100_000, "seen_ns": number}
        for number, us in ((1, 50_000), (2, 400_000))
    ]
    made = make_trace(tmp_path, waits, targets=[target], cgroups=cgroups)
    (finding,) = python_report(Trace.open(made)).findings
    assert "the CPU quota of /pod/c (0.50 CPUs) was used up: 0.9 of 1" in finding.sentence


def test_of_hundreds_of_processes_some_are_shown(tmp_path: Path) -> None:
    targets = [
        {"pid": pid, "runtime": "python", "version": "3.12.1", "level": 1, "from_ns": 0}
        for pid in range(1, 301)
    ]
    made = str(make_trace(tmp_path, targets=targets))
    shown = CliRunner().invoke(command, [made, "--top", "2"]).output
    assert shown.startswith("1: Python 3.12.1\n2: Python 3.12.1\nand 298 more\n")
    assert len(json.loads(CliRunner().invoke(command, [made, "--json"]).output)["processes"]) == 300


def test_json_has_all_rows_unless_top_says_how_many(tmp_path: Path) -> None:
    target = {"pid": PID, "runtime": "python", "level": 1, "from_ns": 0}
    waits = [
        {"kind": "gil", "pid": PID, "tid": PID + i, "trace_id": f"{i:032x}"} for i in range(25)
    ]
    made = str(make_trace(tmp_path, waits, targets=[target]))
    for options, rows in (([], 25), (["--top", "3"], 3)):
        said = json.loads(CliRunner().invoke(command, [made, "--json", *options]).output)
        assert [len(said["gil"]), len(said["gil_traces"])] == [rows, rows]


@pytest.mark.parametrize(("ns", "shown"), [(1_234_567_890, "1.23 s"), (25_400_000, "25.4 ms")])
def test_a_sleep_of_a_loop_is_a_time(tmp_path: Path, ns: int, shown: str) -> None:
    """In nanoseconds, as all times in JSON."""
    target = {"pid": PID, "runtime": "python", "level": 1, "from_ns": 0}
    loop = {"kind": "loop", "reason": "iteration", "pid": PID, "tid": PID, "wait_ns": 2 * ns}
    sleeps = {"kind": "blocked", "reason": "sleep", "pid": PID, "tid": PID, "wait_ns": ns}
    made = str(make_trace(tmp_path, [loop, *[sleeps] * 5], targets=[target]))
    output = CliRunner().invoke(command, [made]).output
    assert f"  {shown} at once, threshold 20.0 ms; cure" in output
    (found,) = json.loads(CliRunner().invoke(command, [made, "--json"]).output)["findings"]
    assert (found["value"], found["threshold"]) == (ns, 20_000_000)
    assert found["unit"] == "ns at once"
    (diagnosed,) = [f for f in diagnose(Trace.open(made)).findings if f.name == "loop_blocked"]
    assert diagnosed.numbers["value"] == ns
    assert diagnosed.lost == pytest.approx(ns / recorded_ns(Trace.open(made)))


def test_the_place_that_is_named_is_that_of_the_longest_sleep(tmp_path: Path) -> None:
    """A thousand short ones are elsewhere; and of the longest of all the place may not be known."""
    target = {"runtime": "python", "pid": PID, "level": 1, "from_ns": 0}
    row = {"pid": PID, "tid": PID}
    loop = row | {"kind": "loop", "reason": "iteration", "wait_ns": SECOND}
    short = row | {"kind": "blocked", "reason": "io", "wait_ns": 1_000_000, "stack_runtime": IN_C}
    long = short | {"wait_ns": 300_000_000, "stack_runtime": IN_PYTHON, "task": "resolver"}
    unknown = short | {"wait_ns": 400_000_000, "stack_runtime": None}
    addresses = {IN_C: HANDLER, IN_PYTHON: SELECT}
    stacks = [
        {"stack_id": stack, "space": "python", "pid": PID, "addresses": [address]}
        for stack, address in addresses.items()
    ]
    frames = [frame(HANDLER, "short_lock"), frame(SELECT, "dns_lookup")]

    def said(*waits: dict[str, Any]) -> str:
        rows = [loop, *[short] * 1000, *waits]
        made = make_trace(tmp_path, rows, targets=[target], stacks=stacks, frames=frames)
        (found,) = [f for f in python_report(Trace.open(made)).findings if f.name == "loop_blocked"]
        return found.sentence.partition("blocking calls: ")[2]

    where = "in dns_lookup (app.py:3), task resolver"
    assert said(long) == f"1300 ms in all, 300 ms at once {where}"
    assert said(long, unknown) == (f"1700 ms in all, 400 ms at once, and 300 ms at once {where}")


def test_collections_of_several_interpreters_at_once_take_their_time_once(tmp_path: Path) -> None:
    target = {"runtime": "python", "pid": PID, "level": 1, "from_ns": 0}
    row = {"kind": "stw", "reason": "gc", "pid": PID, "wait_ns": 4 * SECOND}
    ends = (5, 6, 6, 9)
    waits = [row | {"tid": PID + i, "end_ns": end * SECOND} for i, end in enumerate(ends)]
    waits += [waits[0] | {"pid": PID + 1, "end_ns": 9 * SECOND}]
    report = python_report(Trace.open(make_trace(tmp_path, waits, targets=[target])))
    assert {f.pid: f.value for f in report.findings} == {PID: 0.8, PID + 1: 0.4}
    assert report.collectors[0].total_ns == 16 * SECOND


def test_a_figure_has_no_exponent(tmp_path: Path) -> None:
    target = {"pid": PID, "runtime": "python", "level": 1, "from_ns": 0}
    throttled = {"kind": "throttled", "pid": PID, "wait_ns": 12_345 * SECOND, "cgroup": "/web"}
    made = make_trace(tmp_path, [throttled], targets=[target])
    output = CliRunner().invoke(command, [str(made)]).output
    assert "  1,234 threads waiting on average, threshold 0.05; cure" in output


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("iteration", "was in iterations of 50 ms and more for 70%"),
        ("busy period", "was busy, one iteration or several, for 50 ms and more for 70%"),
    ],
)
def test_what_may_be_several_iterations_is_not_called_one(
    reason: str, said: str, tmp_path: Path
) -> None:
    row = {"kind": "loop", "reason": reason, "pid": PID, "tid": PID, "wait_ns": 7 * SECOND}
    made = make_trace(tmp_path, [row | {"end_ns": 8 * SECOND}])
    (found,) = python_report(Trace.open(made)).findings
    assert said in found.sentence


PLACES = ("first", "second", "third")


def _places() -> dict[str, Any]:
    """Stack n is in the n-th place, from 1 on."""
    numbered = list(enumerate(PLACES, 1))
    return {
        "targets": [{"runtime": "python", "pid": PID, "level": 1, "from_ns": 0}],
        "stacks": [
            {"stack_id": n, "space": "python", "pid": PID, "addresses": [n]} for n, _ in numbered
        ],
        "frames": [frame(n, name) for n, name in numbered],
    }


@pytest.mark.parametrize("longest", range(len(PLACES)))
def test_a_holder_is_where_others_waited_for_it_longest(tmp_path: Path, longest: int) -> None:
    """And held the GIL for as long as it was seen to, not for as long as others waited."""
    wait = {"kind": "gil", "pid": PID, "tid": 1, "wait_ns": SECOND, "comm": "waiter"}
    held = wait | {"culprit_pid": PID, "culprit_tid": 2, "culprit_comm": "holder"}
    # In a place that is not known for longer still.
    waits = [held | {"culprit_ns": 500_000_000}]
    for place in range(len(PLACES)):
        ns = 400_000_000 if place == longest else 100_000_000
        waits += [held | {"culprit_stack": place + 1, "culprit_ns": ns}]
    report = python_report(Trace.open(make_trace(tmp_path, waits, **_places())))
    holder, waiter = report.gil
    assert (holder.tid, holder.comm, holder.waited_ns) == (2, "holder", 0)
    assert holder.held_ns == 1_100_000_000
    assert holder.holding == f"{PLACES[longest]} (app.py:3)"
    assert (waiter.tid, waiter.waited_ns, waiter.held_ns) == (1, 4 * SECOND, 0)


@pytest.mark.parametrize("longest", range(len(PLACES)))
def test_slow_iterations_are_those_that_are_long_without_their_waits(
    tmp_path: Path, longest: int
) -> None:
    """For a CPU and for the GIL."""
    row = {"kind": "loop", "reason": "iteration", "pid": PID, "tid": PID}
    waits = [
        row | {"wait_ns": 60_000_000, "stack_runtime": 1 + (longest + 1) % len(PLACES)} | other
        for other in ({"gil_ns": 10_000_001}, {"runq_ns": 10_000_001})
        for _ in range(9)
    ]
    for place in range(len(PLACES)):
        own = {"wait_ns": (150 if place == longest else 70) * 1_000_000, "stack_runtime": place + 1}
        waits += [row | own | {"gil_ns": 10_000_000, "runq_ns": 10_000_000}]
    (loop,) = python_report(Trace.open(make_trace(tmp_path, waits, **_places()))).loops
    assert loop.slow_ns == (130 + 2 * 50) * 1_000_000
    assert loop.place == f"{PLACES[longest]} (app.py:3)"
    assert (loop.gil_ns, loop.runq_ns) == (120_000_009, 120_000_009)
