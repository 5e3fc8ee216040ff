"""A Go process that became another program by exec, from rows made by hand: each by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sltrace.analysis.frames import resolve_stacks
from sltrace.analysis.golang import programs as module
from sltrace.analysis.golang.chain import chain
from sltrace.analysis.golang.findings import findings
from sltrace.analysis.golang.health import unread, windows
from sltrace.trace.reader import Trace
from tests.support.recorder import sltrace
from tests.support.traces import SECOND, make_trace

PID, OTHER, GOID, PLACE, NATIVE = 100, 200, 7, 0x401000, 9
STACKS = {1: 11, 2: 12}
"""By its number of a program, one that waits at the same place as that of the other."""


def _target(pid: int, from_s: float, until_s: float | None, version: str) -> dict[str, Any]:
    until = None if until_s is None else round(until_s * SECOND)
    told = {"runtime": "go", "exe": "/svc", "version": version, "level": 2, "why": ""}
    return {"pid": pid, "from_ns": round(from_s * SECOND), "until_ns": until, **told}


TARGETS = [
    _target(PID, 0, 4, "go1.26.6"),
    _target(PID, 5, None, "go1.27.3"),
    _target(OTHER, 0, None, "go1.27.3"),
]


def _frames() -> dict[str, Any]:
    return {
        "stacks": [
            *(
                {"stack_id": i, "space": "go", "pid": PID, "program": n, "addresses": [PLACE]}
                for n, i in STACKS.items()
            ),
            {"stack_id": NATIVE, "space": "user", "pid": PID, "addresses": [PLACE]},
        ],
        "frames": [
            {"space": "go", "pid": PID, "program": n, "address": PLACE, "name": f"main.of{n}"}
            for n in STACKS
        ],
    }


def test_what_is_at_an_address_is_of_the_program(tmp_path: Path) -> None:
    """A stack that does not tell of which it is has the name of none."""
    trace = Trace.open(make_trace(tmp_path, **_frames()))
    resolved = resolve_stacks(trace, np.array([*STACKS.values(), NATIVE]))
    names = {i: resolved.frames[frames[0]].name for i, frames in resolved.stacks.items()}
    assert names == {11: "main.of1", 12: "main.of2", NATIVE: "[unknown]"}


def test_findings_are_of_one_program(tmp_path: Path) -> None:
    """Both leak at the same place; together they only fell once. The second keeps a P, too."""
    grown = [*((t, 1, 300 * t + 100) for t in range(4)), *((t, 2, 300 * t) for t in range(5, 10))]
    samples = [
        {"ns": t * SECOND + 1, "source": "wall", "pid": PID, "state": "waiting", "count": count,
         "reason": "select", "stack_runtime": STACKS[n]}
        for t, n, count in grown
    ]  # fmt: skip
    gauges = [
        {"ns": ns, "pid": pid, "name": name, "item": 0, "value": value}
        for ns, pid, hold in ((3 * SECOND, PID, 3e8), (6 * SECOND, PID, 2e8), (SECOND, OTHER, 4e8))
        for name, value in (("p_state", 1.0), ("p_goid", float(GOID)), ("p_hold_ns", hold))
    ]
    path = make_trace(tmp_path, targets=TARGETS, samples=samples, gauges=gauges, **_frames())
    found = [
        (f.name, f.pid, f.start_ns // SECOND, f.evidence.get("hold_ns"))
        for f in findings(Trace.open(path))
    ]
    assert found == [
        ("goroutine_leak", PID, 0, None),
        ("p_hoarding", OTHER, 0, 400_000_000),
        ("p_hoarding", PID, 2, 300_000_000),
        ("goroutine_leak", PID, 5, None),
        ("p_hoarding", PID, 5, 200_000_000),
    ]


def test_windows_and_notes_are_of_one_program(tmp_path: Path) -> None:
    """The first was idle, the second busy; of a third nothing was read."""
    gauges = [
        {"ns": t * SECOND, "pid": PID, "name": name, "value": value}
        for t in (1, 3, 6, 9)
        for name, value in (("gomaxprocs", 2.0), ("idle_ps", 2.0 if t < 4 else 0.0))
    ]
    waits = [
        {"kind": "goroutine", "pid": PID, "end_ns": t * SECOND, "wait_ns": t * 1000, "goid": GOID,
         "reason": "select", "stack_runtime": STACKS[1 if t < 4 else 2]}
        for t in (2, 3, 7)
    ]  # fmt: skip
    targets = [*TARGETS[:1], _target(PID, 5, 9.5, "go1.27.3"), _target(PID, 9.6, None, "go1.27.3")]
    path = make_trace(tmp_path, waits, targets=targets, gauges=gauges, **_frames())
    trace = Trace.open(path)
    seen = [(w.start_ns, w.end_ns, w.p_utilisation, w.waits) for w in windows(trace, 30 * SECOND)]
    assert seen == [(0, 4 * SECOND, 0, 2), (5 * SECOND, 9_500_000_000, 1, 1)]
    assert unread(trace) == [
        f"nothing was read of 1 Go program ({PID}): it ended at once, or the recorder had no time"
    ]
    found = chain(trace, goid=GOID)
    assert found.several
    assert [(s.nth, s.where) for s in found.steps] == [
        *[(1, "main.of1")] * 2,
        (2, "main.of2"),
    ]
    said = sltrace("chain", path, "--goid", str(GOID))
    assert "7 of pid 100, program 2" in said.out
    said = sltrace("go", path)
    assert "process 100  /svc  go1.26.6  level 2, 0 ns to 4.00 s" in said.out
    assert "process 100  /svc  go1.27.3  level 2, from 9.60 s on" in said.out


def test_programs_that_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PROGRAMS", 2)
    targets = [_target(PID, t, t + 0.5, "go1.27.3") for t in range(5)]
    trace = Trace.open(make_trace(tmp_path, targets=targets))
    assert len(list(module.by_program(trace))) == 2
    assert module.beyond(trace) == [
        "process 100 was 5 programs, one after the other: findings are of the first 2"
    ]


def test_a_process_recorded_twice_is_one_program(tmp_path: Path) -> None:
    """It outlived the first recording of a merged trace."""
    targets = [_target(PID, 0, None, "go1.27.3"), _target(PID, 7, None, "go1.27.3")]
    trace = Trace.open(make_trace(tmp_path, targets=targets))
    assert list(module.by_program(trace)) == [trace]
