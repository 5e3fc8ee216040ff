"""Each finding of Go at the threshold that docs/go.md gives, and just below it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sltrace.analysis.golang.goroutines import amplification, leaks
from sltrace.analysis.golang.processors import backlog, hoarding, lost_p
from sltrace.model import Flag
from sltrace.trace.reader import Trace
from tests.support.traces import SECOND, make_trace

PID, GOID, STACK = 100, 7, 5
MS, US = 1_000_000, 1000
TARGET = {"runtime": "go", "pid": PID, "level": 1, "from_ns": 0}


def gauges(ns: int, **values: float) -> list[dict[str, Any]]:
    return [{"ns": ns, "pid": PID, "name": n, "item": 0, "value": v} for n, v in values.items()]


@pytest.mark.parametrize(
    ("counts", "all_together", "leaking"),
    [
        ([10, 45, 80, 110], 0, 1),
        ([10, 45, 80, 109], 0, 0),
        # Three scans are too few.
        ([10, 60, 110], 0, 0),
        # So are those since the stack was first seen, however many scans there were before.
        ([None, None, 10, 60, 110], 0, 0),
        ([None, 10, 45, 80, 110], 0, 1),
        # In the last third a tenth of the growth, and less.
        ([10, 310, 610, 810, 910, 960, 1010], 0, 1),
        ([10, 310, 610, 810, 911, 960, 1010], 0, 0),
        # At last 2,048 of 20,480 are looked at: four deviations are 645 of the first, 652 of the
        # second.
        ([1000, 1200, 1400, 1600], 20_480, 0),
        ([1000, 1220, 1440, 1660], 20_480, 1),
    ],
)
def test_how_much_growth_is_a_leak(
    tmp_path: Path, counts: list[int | None], all_together: int, leaking: int
) -> None:
    row = {"source": "wall", "pid": PID, "state": "waiting", "reason": "select"}
    others = [1] * (len(counts) - 1) + [max(all_together - (counts[-1] or 0), 1)]
    samples = [
        {**row, "ns": second * SECOND, "count": count, "stack_runtime": stack}
        for second, both in enumerate(zip(counts, others, strict=True))
        for stack, count in enumerate(both, STACK)
        if count is not None
    ]
    assert len(leaks(Trace.open(make_trace(tmp_path, samples=samples)))) == leaking


@pytest.mark.parametrize(("hold_ns", "hoarding_one"), [(100 * MS, 1), (100 * MS - 1, 0)])
def test_how_long_a_p_may_be_kept(tmp_path: Path, hold_ns: int, hoarding_one: int) -> None:
    read = gauges(3 * SECOND, p_state=1.0, p_goid=GOID, p_hold_ns=hold_ns)
    assert len(hoarding(Trace.open(make_trace(tmp_path, gauges=read)))) == hoarding_one


@pytest.mark.parametrize(
    ("kind", "wait_ns", "lost"),
    [
        ("throttled", 200 * MS, 1),
        ("throttled", 200 * MS - 1, 0),
        ("runq_preempt", 2 * SECOND, 1),
        ("runq_preempt", 2 * SECOND - 1, 0),
    ],
)
def test_how_much_of_a_p_may_be_lost(tmp_path: Path, kind: str, wait_ns: int, lost: int) -> None:
    """Of one P for 10 s."""
    wait = {"kind": kind, "pid": PID, "held_p": 0, "wait_ns": wait_ns, "end_ns": 8 * SECOND}
    ps = gauges(SECOND, gomaxprocs=1.0)
    trace = Trace.open(make_trace(tmp_path, [wait], gauges=ps, targets=[TARGET]))
    assert len(lost_p(trace)) == lost


@pytest.mark.parametrize(
    ("seconds", "queued", "network_ns", "found"),
    [
        (2, 32.0, 499, ["goroutine_backlog"]),
        (2, 32.0, 500, ["netpoller_starvation"]),
        (2, 31.9, 500, []),
        (1, 32.0, 500, []),
    ],
)
def test_how_many_goroutines_may_queue(
    tmp_path: Path, seconds: int, queued: float, network_ns: int, found: list[str]
) -> None:
    """For two Ps, on average over a second; by whether half as much was waited after the network as
    after anything else."""
    read = [
        gauge
        for tenth in range(10 * seconds)
        for gauge in gauges(
            SECOND + tenth * SECOND // 10, gomaxprocs=2.0, runq_local=tenth % 2 * 2 * queued
        )
    ]
    row = {"kind": "goroutine", "pid": PID, "end_ns": SECOND + SECOND // 2}
    waits = [
        row | {"reason": "IO wait", "wait_ns": network_ns},
        row | {"reason": "new goroutine", "wait_ns": 1000},
    ]
    trace = Trace.open(make_trace(tmp_path, waits, gauges=read))
    assert [str(f.name) for f in backlog(trace)] == found


@pytest.mark.parametrize(
    ("stops", "amplified", "pause_ns", "still_ns", "found"),
    [
        (8, 2, 250 * US, 750 * US, 1),
        (8, 1, 250 * US, 750 * US, 0),
        (7, 7, 250 * US, 750 * US, 0),
        (8, 8, 300 * US, 900 * US - 1, 0),
        (8, 8, 200 * US, 700 * US - 1, 0),
    ],
)
def test_how_much_longer_than_the_world_a_goroutine_may_stand_still(
    tmp_path: Path, stops: int, amplified: int, pause_ns: int, still_ns: int, found: int
) -> None:
    waits: list[dict[str, Any]] = []
    for number in range(stops):
        began = (number + 1) * SECOND
        still = still_ns if number < amplified else pause_ns
        stop = {"kind": "stw", "pid": PID, "end_ns": began + pause_ns, "wait_ns": pause_ns}
        locked = {"kind": "goroutine", "pid": PID, "flags": int(Flag.LOCKED_THREAD)}
        waits += [stop, locked | {"end_ns": began + still, "wait_ns": still}]
    assert len(amplification(Trace.open(make_trace(tmp_path, waits)))) == found
