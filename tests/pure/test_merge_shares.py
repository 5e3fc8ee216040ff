"""Merged traces: what of a process is a share of time is one of the recordings that it is in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sltrace.analysis.golang.health import windows
from sltrace.analysis.meta import recorded_ns_with, recordings_with
from sltrace.analysis.python.report import python_report
from sltrace.model import PID_SPACE
from sltrace.trace.merge import merge
from sltrace.trace.reader import Trace
from tests.pure.test_merge import UNIX, clock, trace_of
from tests.support.traces import SECOND


def test_shares_of_a_process_are_of_the_recordings_it_is_in(tmp_path: Path) -> None:
    """Half of its 10 s in collections is that, however long was recorded elsewhere."""
    target = {"runtime": "python", "pid": 7, "level": 1, "version": "3.12", "from_ns": 100 * SECOND}
    collection = {"kind": "stw", "reason": "gc", "pid": 7, "tid": 7, "wait_ns": 5 * SECOND}
    rows = [collection | {"end_ns": 106 * SECOND}]
    a = trace_of(tmp_path, "a", rows, "one", UNIX, targets=[target])
    later = {"clock": clock(UNIX, 3700 * SECOND)}
    b = trace_of(tmp_path, "b", [{"end_ns": 3705 * SECOND, "tid": 1}], "one", 0, meta=later)
    c = trace_of(tmp_path, "c", rows, "two", UNIX, targets=[target])
    merge([a, b, c], tmp_path / "m.slt")
    merged = Trace.open(tmp_path / "m.slt")
    assert python_report(merged).wall_ns == 20 * SECOND
    found = {f.pid: f.value for f in python_report(merged).findings}
    assert found == {7: 0.5, 7 + PID_SPACE: 0.5}
    assert recorded_ns_with(merged, 1, "python") == 20 * SECOND


def test_shares_of_a_worker_are_of_its_life_in_each_recording(tmp_path: Path) -> None:
    """2 s of the first recording, 3 s of the next: a second in collections is a fifth."""
    begins = (100 * SECOND, 3700 * SECOND)
    parts = []
    for number, (start, lived) in enumerate(zip(begins, ((8, None), (-1, 3)), strict=True)):
        born, died = lived
        target = {
            "runtime": "python",
            "pid": 7,
            "level": 1,
            "version": "3.12",
            "from_ns": start + born * SECOND,
            "until_ns": None if died is None else start + died * SECOND,
        }
        collection = {"kind": "stw", "reason": "gc", "pid": 7, "tid": 7, "wait_ns": SECOND // 2}
        rows = [collection | {"end_ns": start + 9 * SECOND - 7 * SECOND * number}]
        meta = {"clock": clock(UNIX, start)}
        parts.append(trace_of(tmp_path, str(number), rows, "one", 0, meta=meta, targets=[target]))
    merge(parts, tmp_path / "m.slt")
    (found,) = python_report(Trace.open(tmp_path / "m.slt")).findings
    assert (found.name, found.value) == ("python_gc", 0.2)


def test_a_process_found_before_its_part_began_is_of_that_part(tmp_path: Path) -> None:
    """Those that are there are looked into first, and then the recording begins."""

    def target(pid: int, from_ns: int) -> Any:
        return {"runtime": "go", "pid": pid, "level": 1, "version": "go1.27.3", "from_ns": from_ns}

    begins = {"one": 100 * SECOND, "two": 3700 * SECOND}
    targets = {
        "one": [target(7, begins["one"] - SECOND // 10), target(9, begins["one"] + SECOND)],
        "two": [target(8, begins["two"] - 5 * SECOND), target(9, begins["two"] - SECOND)],
    }
    parts = [
        trace_of(tmp_path, name, [{"end_ns": start + SECOND, "tid": tid}], "host", UNIX,
                 meta={"clock": clock(UNIX, start)}, targets=targets[name])
        for tid, (name, start) in enumerate(begins.items(), 1)
    ]  # fmt: skip
    merge(parts, tmp_path / "m.slt")
    merged = Trace.open(tmp_path / "m.slt")
    one, two = ((start, start + 10 * SECOND) for start in begins.values())
    for pid, held in ((7, [one]), (8, [two]), (9, [one, two])):
        assert recordings_with(merged, pid, "go") == held
        assert recorded_ns_with(merged, pid, "go") == len(held) * 10 * SECOND


def _merged_of_go(
    tmp_path: Path,
    starts: Sequence[int],
    gauges: Callable[[int], Sequence[tuple[int, str, float]]],
    wait: dict[str, Any],
) -> Trace:
    """Two recordings of 10 s of one Go process, joined.

    Args:
        tmp_path: Where to.
        starts: When each began.
        gauges: Of each recording, by its number: seconds from its start, name and value.
        wait: One wait in each; `end_ns` is from its start.
    """
    parts = []
    for number, start in enumerate(starts, 1):
        rows = [
            {"ns": start + t * SECOND, "pid": 7, "name": name, "value": value}
            for t, name, value in gauges(number)
        ]
        target = {"runtime": "go", "pid": 7, "level": 1, "from_ns": start - SECOND}
        waits = [wait | {"tid": number, "end_ns": start + wait["end_ns"]}]
        meta = {"clock": clock(UNIX, start)}
        parts.append(
            trace_of(tmp_path, str(number), waits, "host", UNIX,
                     meta=meta, targets=[target], gauges=rows)
        )  # fmt: skip
    merge(parts, tmp_path / "m.slt")
    return Trace.open(tmp_path / "m.slt")


def test_probes_were_on_for_a_share_of_what_was_recorded(tmp_path: Path) -> None:
    """Two recordings of 10 s an hour apart, with the probes on for 5 s of each."""
    gauges = [(1, "probes_on", 1.0), (2, "gomaxprocs", 4.0), (6, "probes_on", 0.0)]
    starts = (100 * SECOND, 3700 * SECOND)
    merged = _merged_of_go(tmp_path, starts, lambda _: gauges, {"end_ns": SECOND})
    first, second = windows(merged, 7200 * SECOND)
    # From the first probe on.
    assert first.looked == second.looked == pytest.approx(5 / 9)


def test_windows_are_within_recordings(tmp_path: Path) -> None:
    """Two recordings of 10 s, 27 s apart: neither a window of both, nor any of the time between."""

    def gauges(number: int) -> list[tuple[int, str, float]]:
        read = (("gomaxprocs", 4.0), ("idle_ps", float(number)))
        return [(t, *one) for t in (1, 7, 10) for one in read]

    wait = {"kind": "goroutine", "end_ns": 8 * SECOND, "pid": 7}
    merged = _merged_of_go(tmp_path, (100 * SECOND, 137 * SECOND), gauges, wait)
    seen = [
        (w.start_ns // SECOND, w.end_ns // SECOND, w.p_utilisation, w.waits)
        for w in windows(merged, 30 * SECOND)
    ]
    assert seen == [(0, 10, 0.75, 1), (37, 47, 0.5, 1)]
    seen = [
        (w.start_ns // SECOND, w.end_ns // SECOND, w.p_utilisation, w.waits)
        for w in windows(merged, 6 * SECOND)
    ]
    # What was read as a recording ended is in its last window.
    assert seen == [(0, 6, 0.75, 0), (6, 10, 0.75, 1), (37, 43, 0.5, 0), (43, 47, 0.5, 1)]
