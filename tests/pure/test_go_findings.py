"""Findings of Go from rows made by hand."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from sltrace.analysis.diagnosis import diagnose
from sltrace.analysis.golang.goroutines import amplification
from sltrace.analysis.golang.health import unread
from sltrace.analysis.golang.processors import hoarding, lost_p
from sltrace.model import Flag
from sltrace.trace.reader import Trace
from tests.support.recorder import one_line, sltrace
from tests.support.traces import SECOND, make_trace

PID, GOID, EXIT, FIRST, LEAF, STACK = 100, 7, 1, 2, 3, 5
HOLD_NS = 400_000_000


def _gauges(hold_ns: int, state: int = 1) -> list[dict[str, Any]]:
    return [
        {"ns": 3 * SECOND, "pid": PID, "name": name, "item": 0, "value": float(value)}
        for name, value in (("p_state", state), ("p_goid", GOID), ("p_hold_ns", hold_ns))
    ]


@pytest.mark.parametrize(("begins_ns", "alarms"), [(-SECOND // 20, 1), (-SECOND // 2, 0)])
def test_what_a_goroutine_waited_after_its_hold_is_no_part_of_it(
    tmp_path: Path, begins_ns: int, alarms: int
) -> None:
    """It lost its CPU for 0.9 s, so long before the end of what is known of its hold."""
    end_ns = 3 * SECOND + begins_ns + 9 * SECOND // 10
    wait = {"kind": "runq_preempt", "pid": PID, "goid": GOID, "end_ns": end_ns}
    waits = [wait | {"wait_ns": 9 * SECOND // 10}]
    path = make_trace(tmp_path, waits, gauges=_gauges(HOLD_NS))
    assert len(hoarding(Trace.open(path))) == alarms


@pytest.mark.parametrize("state", ["S", "D", "T", "t"])
def test_a_goroutine_whose_thread_was_blocked_hoards_nothing(tmp_path: Path, state: str) -> None:
    """As by a page that had to be read, a signal, a freezer or a debugger."""
    end_ns = 3 * SECOND + SECOND // 20
    wait = {"kind": "blocked", "pid": PID, "goid": GOID, "end_ns": end_ns, "state": state}
    waits = [wait | {"wait_ns": HOLD_NS}]
    assert hoarding(Trace.open(make_trace(tmp_path, waits, gauges=_gauges(HOLD_NS)))) == []


def test_a_system_call_hoards_nothing(tmp_path: Path) -> None:
    """The runtime takes its P; where it does not, it was not let run itself."""
    assert len(hoarding(Trace.open(make_trace(tmp_path, gauges=_gauges(HOLD_NS))))) == 1
    assert hoarding(Trace.open(make_trace(tmp_path, gauges=_gauges(HOLD_NS, state=2)))) == []


def test_one_goroutine_with_many_holds_takes_no_time_for_each_of_its_waits(tmp_path: Path) -> None:
    """It was off the CPU for 15 ms of the longest hold, 5 ms of them at its end."""
    holds, hold_ns = 40_000, 150_000_000
    ends = 2 * hold_ns * np.arange(1, holds + 1)
    held = np.where(ends == ends[7], hold_ns + 50_000_000, hold_ns)
    names = ("p_state", "p_goid", "p_hold_ns")
    gauges = {
        "ns": np.repeat(ends, 3),
        "pid": np.full(3 * holds, PID, np.int32),
        "name": np.tile(names, holds),
        "item": np.zeros(3 * holds, np.int32),
        "value": np.stack([np.ones(holds), np.full(holds, GOID), held], 1).ravel(),
    }
    waited = np.concatenate([ends - held // 2, ends + 5_000_000, ends - held - 10_000_000])
    waits: dict[str, Any] = {
        "kind": np.repeat("runq_preempt", 3 * holds),
        "pid": np.full(3 * holds, PID, np.int32),
        "goid": np.full(3 * holds, GOID),
        "end_ns": waited,
        "wait_ns": np.full(3 * holds, 10_000_000),
    }
    trace = Trace.open(make_trace(tmp_path, pa.table(waits), gauges=pa.table(gauges)))
    began = time.process_time()
    (found,) = hoarding(trace)
    assert time.process_time() - began < 6
    assert (found.start_ns, found.end_ns) == (ends[7] - held[7], ends[7])
    assert (found.evidence["hold_ns"], found.evidence["off_cpu_ns"]) == (held[7], 15_000_000)


@pytest.mark.parametrize(
    ("first", "alarms"),
    [
        ("runtime.gcBgMarkStartWorkers.gowrap1", 0),
        ("runtime.gcBgMarkWorker", 0),
        ("main.main.func1", 1),
    ],
)
def test_a_worker_of_the_collector_hoards_no_p(tmp_path: Path, first: str, alarms: int) -> None:
    """It marks a large heap without a break; it lost its CPU before, but not meanwhile."""
    names = {EXIT: "runtime.goexit", FIRST: first, LEAF: "main.work"}
    frames: list[dict[str, Any]] = [
        {"space": "go", "pid": PID, "address": a, "name": n, "module": "", "language": "go"}
        for a, n in names.items()
    ]
    stacks = [{"stack_id": STACK, "space": "go", "pid": PID, "addresses": [LEAF, FIRST, EXIT]}]
    waits = [
        {"kind": "runq_preempt", "pid": PID, "goid": GOID, "stack_runtime": STACK, "end_ns": SECOND}
    ]
    path = make_trace(tmp_path, waits, gauges=_gauges(HOLD_NS), stacks=stacks, frames=frames)
    found = hoarding(Trace.open(path))
    assert len(found) == alarms
    assert all(f"main.work, started by {first}" in f.sentence for f in found)


def test_a_process_of_which_nothing_was_read_is_not_called_healthy(tmp_path: Path) -> None:
    """The recorder had no time for it, or it ended at once."""
    targets = [{"runtime": "go", "pid": pid, "level": 0} for pid in (PID, 8, 9)]
    refused = {"runtime": "go", "pid": 10}
    read = _gauges(HOLD_NS)
    path = make_trace(tmp_path, gauges=read, targets=[*targets, refused])
    (note,) = unread(Trace.open(path))
    assert "of 2 Go programs (8, 9):" in note
    assert note in diagnose(Trace.open(path)).notes
    assert unread(Trace.open(make_trace(tmp_path, gauges=read, targets=targets[:1]))) == []


def test_a_process_that_was_refused_is_not_called_healthy(tmp_path: Path) -> None:
    """Whoever asks what is wrong has to know that a service was not looked into."""
    whys = ["built by go1.99", "", "built by go1.99"]
    targets = [
        {"runtime": "go", "pid": pid, "why": why} for pid, why in zip((7, 8, 9), whys, strict=True)
    ]
    note, no_waits = diagnose(Trace.open(make_trace(tmp_path, targets=targets[:1]))).notes
    assert "no waits" in no_waits
    assert note == "the scheduling within 1 Go program (7) is not known: built by go1.99"
    note = diagnose(Trace.open(make_trace(tmp_path, targets=targets))).notes[0]
    assert "within 3 Go programs (7, 8, 9) is not known: of most, built by go1.99; " in note


def test_what_is_not_known_is_no_empty_table(tmp_path: Path) -> None:
    """Neither of who was not looked into, nor of who ended before anything was read."""
    refused = {"runtime": "go", "pid": 7, "exe": "/svc", "why": "built by go1.99"}
    read = {"runtime": "go", "pid": 8, "level": 0, "version": "go1.27.3", "exe": "/svc"}
    path = make_trace(tmp_path, targets=[refused])
    for options in ((), ("--json",)):
        said = sltrace("go", path, *options)
        one_line(said, 2, "no Go process that was looked into: 7 (/svc), built by go1.99")
    said = sltrace("go", make_trace(tmp_path, targets=[refused, read]))
    assert said.code == 0, said.err
    assert "go1.27.3  level 0" in said.out
    assert "not looked into: built by go1.99" in said.out
    assert "nothing was read, so what is wrong is not known" in said.out
    assert "note: nothing was read of 1 Go program (8)" in said.out
    assert "PROCESS" not in said.out
    assert "threshold" not in said.out


@pytest.mark.parametrize(
    ("culprit", "because"),
    [(PID, "its own other threads"), (9, "other tasks, most of all neighbour")],
)
def test_a_process_in_its_own_way_is_told_from_others(
    tmp_path: Path, culprit: int, because: str
) -> None:
    wait = {"kind": "runq_preempt", "pid": PID, "held_p": 0, "wait_ns": 6 * SECOND}
    whom = {"culprit_pid": culprit, "culprit_comm": "svc" if culprit == PID else "neighbour"}
    gauges = [{"ns": SECOND, "pid": PID, "name": "gomaxprocs", "value": 2.0}]
    targets = [{"runtime": "go", "pid": PID, "level": 0, "from_ns": 0}]
    waits = [wait | whom | {"end_ns": 8 * SECOND}]
    (found,) = lost_p(Trace.open(make_trace(tmp_path, waits, gauges=gauges, targets=targets)))
    assert f"because of {because}" in found.sentence


def test_the_quota_that_is_named_is_the_one_that_held_last(tmp_path: Path) -> None:
    wait = {"kind": "throttled", "pid": PID, "held_p": 0, "wait_ns": 6 * SECOND}
    gauges = [{"ns": SECOND, "pid": PID, "name": "gomaxprocs", "value": 2.0}]
    targets = [{"runtime": "go", "pid": PID, "level": 0, "from_ns": 0}]
    quotas = [
        {"cgroup_id": 1, "quota_us": us, "period_us": 100_000, "seen_ns": ns}
        for us, ns in ((50_000, 2), (200_000, 1), (None, 3))
    ]
    tables: dict[str, Any] = {"gauges": gauges, "targets": targets, "cgroups": quotas}
    waits = [wait | {"end_ns": 8 * SECOND}]
    (found,) = lost_p(Trace.open(make_trace(tmp_path, waits, **tables)))
    assert "because of the CPU quota (at last 0.5 CPUs for 2 Ps)" in found.sentence
    assert found.evidence["quota_cpus"] == 0.5
    tables["cgroups"] = quotas[1:2]
    gauges.append({"ns": 2 * SECOND, "pid": PID, "name": "gomaxprocs", "value": 1.0})
    (found,) = lost_p(Trace.open(make_trace(tmp_path, waits, **tables)))
    assert "because of the CPU quota (2 CPUs for 1.5 Ps on average)" in found.sentence
    gauges.pop()
    (found,) = lost_p(Trace.open(make_trace(tmp_path, waits, **tables)))
    assert "because of the CPU quota (2 CPUs for 2 Ps)" in found.sentence


def test_each_cause_has_its_own_share_and_is_named_beyond_its_own_threshold(
    tmp_path: Path,
) -> None:
    """Of one P for 10 s, 2 % and 20 % are too much."""
    wait = {"pid": PID, "held_p": 0, "end_ns": 8 * SECOND}
    quota = wait | {"kind": "throttled"}
    batch = wait | {"kind": "runq_preempt", "culprit_pid": 9, "culprit_comm": "batch"}
    gauges = [{"ns": SECOND, "pid": PID, "name": "gomaxprocs", "value": 1.0}]
    targets = [{"runtime": "go", "pid": PID, "level": 0, "from_ns": 0}]

    def said(quota_ns: int, batch_ns: int) -> str:
        waits = [quota | {"wait_ns": quota_ns}, batch | {"wait_ns": batch_ns}]
        path = make_trace(tmp_path, waits, gauges=gauges, targets=targets)
        (found,) = lost_p(Trace.open(path))
        return str(found.sentence.partition("off the CPU for ")[2].partition(";")[0])

    by_quota = "of the Ps' time because of the CPU quota"
    by_batch = "of the Ps' time because of other tasks, most of all batch"
    assert said(SECOND // 5, 4 * SECOND) == f"2% {by_quota} and 40% {by_batch}"
    assert said(SECOND // 10, 4 * SECOND) == f"40% {by_batch}"
    assert said(SECOND // 5, SECOND) == f"2% {by_quota}"


def test_the_task_that_is_named_was_waited_for_longest_and_not_most_often(tmp_path: Path) -> None:
    wait = {"kind": "runq_preempt", "pid": PID, "held_p": 0, "end_ns": 8 * SECOND}
    batch = wait | {"culprit_pid": 9, "culprit_comm": "batch", "wait_ns": 4 * SECOND}
    short = wait | {"culprit_pid": 8, "culprit_comm": "kworker/0:1", "wait_ns": 1000}
    gauges = [{"ns": SECOND, "pid": PID, "name": "gomaxprocs", "value": 1.0}]
    targets = [{"runtime": "go", "pid": PID, "level": 0, "from_ns": 0}]
    path = make_trace(tmp_path, [batch, *[short] * 50], gauges=gauges, targets=targets)
    (found,) = lost_p(Trace.open(path))
    assert "because of other tasks, most of all batch;" in found.sentence
    assert found.evidence["culprit"] == "batch"


def test_of_several_quotas_the_one_that_was_waited_for_longest_is_named(tmp_path: Path) -> None:
    wait = {"kind": "throttled", "pid": PID, "held_p": 0, "end_ns": 8 * SECOND, "cgroup": "/pod/c"}
    above = {"culprit_cgroup": "/pod", "culprit_cgroup_id": 2}
    waits = [wait | {"wait_ns": 6 * SECOND}, *[wait | above | {"wait_ns": SECOND // 10}] * 2]
    cgroups = [
        {"cgroup_id": number, "quota_us": us, "period_us": 100_000, "seen_ns": number}
        for number, us in ((1, 50_000), (2, 400_000))
    ]
    gauges = [{"ns": SECOND, "pid": PID, "name": "gomaxprocs", "value": 2.0}]
    targets = [{"runtime": "go", "pid": PID, "level": 0, "from_ns": 0}]
    path = make_trace(tmp_path, waits, gauges=gauges, targets=targets, cgroups=cgroups)
    (found,) = lost_p(Trace.open(path))
    assert "because of the CPU quota (0.5 CPUs for 2 Ps)" in found.sentence
    assert found.evidence["quota_cpus"] == 0.5


def _lost(tmp_path: Path, gomaxprocs: list[float], target: dict[str, Any]) -> list[Any]:
    """Of a recording of 10 s, 1 s of a thread that held a P, from before its beginning on."""
    wait = {"kind": "runq_preempt", "pid": PID, "held_p": 0, "wait_ns": SECOND}
    gauges = [
        {"ns": SECOND + number, "pid": PID, "name": "gomaxprocs", "value": value}
        for number, value in enumerate(gomaxprocs)
    ]
    targets = [{"runtime": "go", "pid": PID, "level": 0} | target]
    waits = [wait | {"end_ns": SECOND // 2}]
    path = make_trace(tmp_path, waits, gauges=gauges, targets=targets)
    return lost_p(Trace.open(path))


def test_time_of_ps_is_that_of_the_process(tmp_path: Path) -> None:
    """It lived for 2 of the 10 s: 1 s of one P is half of that, and a tenth of the recording."""
    assert not _lost(tmp_path, [1.0], {"from_ns": 0})
    (found,) = _lost(tmp_path, [1.0], {"from_ns": 0, "until_ns": 2 * SECOND})
    assert "off the CPU for 50% of the Ps' time" in found.sentence
    assert (found.start_ns, found.end_ns) == (0, SECOND // 2)


def test_time_in_which_it_was_of_another_runtime_is_none_of_its_ps(tmp_path: Path) -> None:
    """It was Python for 2 s before: 0.15 s of the quota are 2 % of 7.5 s, and not of 9.5 s."""
    wait = {"kind": "throttled", "pid": PID, "held_p": 0, "wait_ns": 3 * SECOND // 20}
    gauges = [{"ns": 3 * SECOND, "pid": PID, "name": "gomaxprocs", "value": 1.0}]
    go = {"runtime": "go", "pid": PID, "level": 0, "from_ns": 5 * SECOND // 2}
    python = {"runtime": "python", "pid": PID, "level": 1, "from_ns": 0, "until_ns": 2 * SECOND}
    for targets in ([go], [python, go]):
        waits = [wait | {"end_ns": 8 * SECOND}]
        path = make_trace(tmp_path, waits, gauges=gauges, targets=targets)
        assert len(lost_p(Trace.open(path))) == 1


def test_ps_are_as_many_as_there_were(tmp_path: Path) -> None:
    """The runtime changes GOMAXPROCS when the quota changes: most of the time there was one P."""
    target = {"from_ns": 0, "until_ns": 2 * SECOND}
    (found,) = _lost(tmp_path, [11.0, *[1.0] * 9], target)
    assert "off the CPU for 25% of the Ps' time" in found.sentence


@pytest.mark.parametrize("value", [None, 0.0])
def test_nothing_is_said_of_ps_that_are_not_known(tmp_path: Path, value: Any) -> None:
    assert not _lost(tmp_path, [value, value], {"from_ns": 0, "until_ns": 2 * SECOND})


def test_of_many_stops_each_goroutine_is_held_against_its_own(tmp_path: Path) -> None:
    stops, pause_ns, still_ns = 40_000, 100_000, 1_000_000
    began = np.arange(stops) * 2_000_000
    columns: dict[str, Any] = {
        "kind": np.repeat(["stw", "goroutine", "goroutine"], stops),
        "pid": np.full(3 * stops, PID, np.int32),
        # The first stands still from the stop on, the second from after it.
        "end_ns": np.concatenate([began + pause_ns, began + still_ns, began + 2 * still_ns]),
        "wait_ns": np.repeat([pause_ns, still_ns, still_ns], stops),
        "flags": np.full(3 * stops, int(Flag.LOCKED_THREAD), np.uint16),
    }
    trace = Trace.open(make_trace(tmp_path, pa.table(columns)))
    (found,) = amplification(trace)
    assert found.evidence["waits"] == found.evidence["stops"] == stops
    assert found.evidence["pause_ns"] == pause_ns
    assert found.evidence["stood_still_ns"] == still_ns


def test_stops_count_alike_however_many_goroutines_stand_still_in_them(tmp_path: Path) -> None:
    def found(still: list[int]) -> list[float]:
        """Of stops of 1 ms, in each of which so many of 8 goroutines stood still for 4 ms."""
        stop = {"kind": "stw", "pid": PID, "wait_ns": 1_000_000}
        locked = {"kind": "goroutine", "pid": PID, "flags": int(Flag.LOCKED_THREAD)}
        waits = []
        for number, count in enumerate(still, 1):
            began = number * SECOND // 10
            waits += [stop | {"end_ns": began + 1_000_000}]
            for goroutine in range(8 if count else 1):
                ns = 4_000_000 if goroutine < count else 1_000_000
                waits += [locked | {"end_ns": began + ns, "wait_ns": ns}]
        amplified = amplification(Trace.open(make_trace(tmp_path, waits)))
        return [f.evidence["amplified"] for f in amplified]

    assert found([8]) == []
    assert found([8] * 7) == []
    assert found([8] * 8) == [1.0]
    # 8 of 15 goroutines stood still, in one stop of 8.
    assert found([8] + [0] * 7) == []
    assert found([8] * 2 + [0] * 6) == [0.25]


@pytest.mark.parametrize(("before_ns", "alarms"), [(100_000, 1), (100_001, 0)])
def test_who_stood_still_since_before_the_stop_waited_for_something_else(
    tmp_path: Path, before_ns: int, alarms: int
) -> None:
    stop = {"kind": "stw", "pid": PID, "wait_ns": 1_000_000}
    locked = {"kind": "goroutine", "pid": PID, "flags": int(Flag.LOCKED_THREAD)}
    waits = []
    for began in range(SECOND, 9 * SECOND, SECOND):
        waits += [stop | {"end_ns": began + 1_000_000}]
        waits += [locked | {"end_ns": began + 9_000_000, "wait_ns": 9_000_000 + before_ns}]
    assert len(amplification(Trace.open(make_trace(tmp_path, waits)))) == alarms
