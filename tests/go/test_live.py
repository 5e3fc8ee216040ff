"""Recordings of Go programs against what the programs' own runtime says of themselves."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sltrace.target.go.histograms import GC_PAUSES, LATENCIES, STW_HISTOGRAMS
from sltrace.target.go.process import identify, look_into
from sltrace.trace.reader import Trace
from tests.support.cli import in_process
from tests.support.golang import (
    MODES,
    OLD_VERSION,
    VERSIONS,
    WITNESS,
    Witness,
    go_program,
    witness,
)
from tests.support.gorecords import (
    COMPARED,
    assert_same_buckets,
    column,
    counters_of,
    difference,
    measured,
)
from tests.support.processes import thread_called
from tests.support.recorder import Recorder, recorder, sltrace

pytestmark = pytest.mark.bpf

STOPPING_GC, _, TOTAL_GC, _ = STW_HISTOGRAMS
ALL = ("--go-budget", "none")
"""Probes that are on all the time, whatever they cost."""


# Each version, and each way to build.
@pytest.mark.parametrize(("version", "mode"), list(zip(VERSIONS, MODES, strict=True)))
def test_waits_are_the_runtimes_own(tmp_path: Path, version: str, mode: str) -> None:
    with witness(version, mode) as running:
        running.ask("work 50")
        with recorder(tmp_path / "w.slt", "--pid", running.pid, *ALL) as recording:
            time.sleep(0.2)
            work = measured(running, "work 700", COMPARED)
        trace = recording.trace
    counts = counters_of(trace)
    assert counts["go_ring_full"] == counts["go_strange"] == counts["go_scratch_full"] == 0
    assert_same_buckets(trace, work)


@pytest.mark.parametrize(
    ("version", "names"),
    [(OLD_VERSION, (LATENCIES, GC_PAUSES)), (VERSIONS[-1], (LATENCIES, TOTAL_GC, STOPPING_GC))],
)
def test_level_0_reads_the_same_histograms(
    tmp_path: Path, version: str, names: tuple[str, ...]
) -> None:
    """Bucket by bucket; a little more was read, as it is from before and after."""
    with witness(version) as running:
        shape = look_into(identify(running.pid)).offsets.histogram
        with recorder(tmp_path / "l0.slt", "--pid", running.pid, "--go-level", 0) as recording:
            time.sleep(0.3)
            before = running.ask("metrics")
            running.ask("work 800")
            after = running.ask("metrics")
        trace = recording.trace
    assert counters_of(trace)["go_hits"] == 0
    lows = shape.bounds[0].tolist()
    for name in names:
        told = np.array(difference(after, before, name, shape.buckets))
        read = np.zeros(shape.words, np.int64)
        for row in trace.sql(
            "SELECT low_ns, sum(count)::BIGINT AS n FROM runtime_histograms "
            f"WHERE name = '{name}' GROUP BY ALL"
        ).to_pylist():
            read[lows.index(row["low_ns"])] = row["n"]
        assert (told <= read[: shape.buckets]).all()
        assert (50 if name == LATENCIES else 1) <= told.sum() <= read.sum() <= told.sum() + 60


def test_stacks_end_where_c_called(tmp_path: Path) -> None:
    """Beyond is C's stack, whose registers are no frames: each call had a stack of its own."""
    with witness(mode="cgo") as running:
        with recorder(tmp_path / "c.slt", "--pid", running.pid, "--go-level", 3, *ALL) as recording:
            running.ask("callbacks 40")
        trace = recording.trace
    stacks = column(
        trace,
        "SELECT stack_runtime FROM waits WHERE kind = 'goroutine_blocked' AND reason = 'sleep'",
    ).tolist()
    assert len(stacks) == 40
    assert len(set(stacks)) == 1


@contextmanager
def both(path: Path, *options: str | int) -> Iterator[tuple[Recorder, tuple[Witness, Witness]]]:
    """Records a witness of the oldest version and one of the newest at once."""
    with witness(VERSIONS[0]) as oldest, witness(VERSIONS[-1]) as newest:
        pids = ("--pid", oldest.pid, "--pid", newest.pid)
        with recorder(path, *options, *pids) as recording:
            yield recording, (oldest, newest)


def test_trace_ids_are_those_logged(tmp_path: Path) -> None:
    """None is wrong, and nearly all waits of goroutines within a trace have theirs."""
    with both(tmp_path / "t.slt", *ALL) as (recording, running):
        logs = {w.pid: {(int(g), t) for g, t in w.ask("traced 700")} for w in running}
    for pid, logged in logs.items():
        _check_trace_ids(recording.trace, pid, logged)
    by = ("--by", "trace_id", "--only", "kind=goroutine", "--json")
    said = in_process("stat", str(recording.path), *by)
    assert said.returncode == 0, said.stderr
    listed = set(re.findall(r'"([0-9a-f]{32})"', said.stdout))
    assert listed
    assert listed <= {trace_id for logged in logs.values() for _, trace_id in logged}


def _check_trace_ids(trace: Trace, pid: int, logged: set[tuple[int, str]]) -> None:
    within = {goid for goid, _ in logged}
    rows = trace.sql(
        "SELECT kind, goid, trace_id, span_id, id_source FROM waits "
        f"WHERE goid IS NOT NULL AND pid = {pid}"
    ).to_pylist()
    tagged = [r for r in rows if r["trace_id"]]
    assert len(tagged) > 150
    for row in tagged:
        assert (row["goid"], row["trace_id"]) in logged
        assert row["trace_id"].endswith(row["span_id"])
        assert row["id_source"] == "pprof_labels"
    for kinds in (("goroutine",), ("runq_wakeup", "runq_preempt", "blocked")):
        theirs = [r for r in rows if r["goid"] in within and r["kind"] in kinds]
        have = sum(1 for r in theirs if r["trace_id"])
        assert have >= 0.95 * len(theirs), kinds


def test_coroutines_have_a_reason_of_their_own(tmp_path: Path) -> None:
    """They do not go on in the function where all others that waited do."""
    program = go_program(WITNESS.parent / "coroutines")
    done = sltrace("record", "-o", tmp_path / "c.slt", "--go-level", 2, *ALL, "--", program)
    assert done.code == 0, done.err
    trace = Trace.open(tmp_path / "c.slt")
    reasons = column(trace, "SELECT reason FROM waits WHERE kind = 'goroutine_blocked'").tolist()
    assert reasons.count("coroutine") > 300
    assert "yielded" not in reasons


def test_level_2_knows_who_woke_whom(tmp_path: Path) -> None:
    """A goroutine that only ever another one wakes, every 3 ms."""
    with witness() as running:
        with recorder(
            tmp_path / "l2.slt", "--pid", running.pid, "--go-level", 2, *ALL
        ) as recording:
            waker, woken = (int(g) for g in running.ask("handover 240"))
        trace = recording.trace
    rows = trace.sql(
        "SELECT wait_ns, waker_goid, reason, stack_runtime, waker_stack_runtime FROM waits "
        f"WHERE kind = 'goroutine_blocked' AND goid = {woken}"
    ).to_pylist()
    assert 240 / 8 * 0.5 < len(rows) < 240 / 8 * 2
    assert {r["waker_goid"] for r in rows} <= {waker}
    assert {r["reason"] for r in rows} == {"chan receive"}
    assert sorted(r["wait_ns"] for r in rows)[len(rows) // 2] >= 3_000_000
    names = trace.sql(
        "SELECT DISTINCT name FROM stacks, frames WHERE list_contains(addresses, address) AND "
        f"stack_id = {rows[0]['waker_stack_runtime']}"
    ).to_pylist()
    assert "main.handOver" in {n["name"] for n in names}


@pytest.mark.parametrize(
    ("version", "level"), [(VERSIONS[0], 2), (VERSIONS[-1], 2), (VERSIONS[-1], 3)]
)
def test_a_waker_on_its_own_stack_has_that_stack(tmp_path: Path, version: str, level: int) -> None:
    """Nothing of where it is has been saved, as has been of one that went to its thread's stack.

    Who waits for a collection is woken by the goroutine that ends it: `runtime.gcMarkTermination`.
    """
    with witness(version) as running:
        options = ("--pid", running.pid, "--go-level", level, *ALL)
        with recorder(tmp_path / "w.slt", *options) as recording:
            running.ask("collect 160")
    wakers = recording.trace.sql(
        "SELECT waker_stack_runtime AS id, list(DISTINCT name) AS names FROM waits "
        "JOIN stacks ON stack_id = waker_stack_runtime, frames "
        "WHERE kind = 'goroutine_blocked' AND reason = 'wait for GC cycle' "
        "AND list_contains(addresses, address) GROUP BY ALL"
    ).to_pylist()
    assert wakers
    for waker in wakers:
        assert {"runtime.gcMarkTermination", "runtime.gcBgMarkWorker"} <= set(waker["names"])
        assert "runtime.systemstack_switch" not in waker["names"]


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_level_3_has_every_wait(tmp_path: Path, version: str) -> None:
    """As many as the program knows, and as the runtime counts once it is told to count them all.

    That it does where casgstatusAlwaysTrack is set, which the runtime's own tests do; here it is
    written into the witness, whose symbols tell where it is.
    """
    path = go_program(WITNESS, version)
    listed = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
    switch = re.search(r"^(\w+) \w runtime.casgstatusAlwaysTrack$", listed, re.M)
    assert switch
    with witness(version) as running:
        running.ask("tick")
        options = ("--pid", running.pid, "--go-level", 3)
        with recorder(tmp_path / "l3.slt", *options) as recording:
            time.sleep(0.4)
            ticked = (recording.started_ns, time.monotonic_ns())
            waker, woken = (int(g) for g in running.ask("handover 150"))
            with open(f"/proc/{running.pid}/mem", "r+b", buffering=0) as memory:
                memory.seek(int(switch[1], 16))
                memory.write(b"\1")
            work = measured(running, "traced 300")
        trace = recording.trace

    def rows(condition: str) -> int:
        return int(column(trace, f"SELECT count(*) FROM waits WHERE {condition}")[0])

    handed = f"kind = 'goroutine_blocked' AND goid = {woken}"
    assert rows(f"{handed} AND reason = 'chan receive' AND waker_goid = {waker}") == 150
    told = sum(difference(work.after, work.before, LATENCIES)[1:])
    times = work.times
    inner, outer = (
        rows(f"kind = 'goroutine' AND end_ns BETWEEN {times[i]} AND {times[3 - i]}") for i in (1, 0)
    )
    # Neither a goroutine's first wait nor one after it was stopped for its stack to be scanned.
    never = "reason IN ('new goroutine', 'preempted')"
    untold = rows(f"kind = 'goroutine' AND {never} AND end_ns BETWEEN {times[0]} AND {times[3]}")
    assert inner - untold <= told <= outer
    assert 500 < outer <= inner + 0.02 * told + 10
    assert untold < 0.03 * told + 10
    assert rows("kind = 'goroutine' AND sampled IS NOT NULL") == 0
    counts = counters_of(trace)
    assert counts["go_ring_full"] == counts["go_scratch_full"] == 0
    # Each wait is three changes of state; and the recorder said how many before it began.
    expected = trace.meta["sources"]["go"]["expected"]
    assert recording.done
    said = f"about {expected['hits_per_s']:,.0f} probe hits a second"
    assert said in recording.done.err
    ticks = rows(f"kind = 'goroutine' AND end_ns BETWEEN {ticked[0]} AND {ticked[1]}")
    happened = 3 * ticks * 1e9 / (ticked[1] - ticked[0])
    assert 0.4 * happened < expected["hits_per_s"] < 2.5 * happened


def test_who_gives_way_is_not_called_preempted(tmp_path: Path) -> None:
    """And who is made to is, by a signal in its loop."""
    times: dict[int, list[int]] = {}
    with both(tmp_path / "y.slt", "--go-level", 3, *ALL) as (recording, running):
        for each in running:
            times[each.pid] = [time.monotonic_ns()]
            for work in ("give-way 100", "count 500"):
                each.ask(work)
                times[each.pid].append(time.monotonic_ns())
    trace = recording.trace

    def reasons(pid: int, start: int, end: int) -> dict[str, int]:
        rows = trace.sql(
            f"SELECT reason, count(*) AS n FROM waits WHERE kind = 'goroutine' AND pid = {pid} "
            f"AND end_ns BETWEEN {start} AND {end} GROUP BY ALL"
        ).to_pylist()
        return {row["reason"]: row["n"] for row in rows}

    for pid, (begin, between, end) in times.items():
        gave_way, counted = reasons(pid, begin, between), reasons(pid, between, end)
        assert gave_way["yielded"] > 100
        assert gave_way.get("preempted", 0) < 0.1 * gave_way["yielded"]
        # 10 ms each.
        assert counted["preempted"] > 10
        assert counted.get("yielded", 0) < 0.2 * counted["preempted"]


def test_time_lost_with_a_p_is_the_kernels_run_delay(tmp_path: Path) -> None:
    """Two Ps, busy all the time, on one CPU: what their threads wait for it, they wait with a P.

    How long that was is in /proc/PID/task/TID/schedstat: read before and after, it is that of the
    waits which ended between the two, and of those that the recorder knows it has missed. A thread
    that was woken is not in it with a P: it gets one when it runs.
    """
    cpu = {min(os.sched_getaffinity(0))}
    with witness() as running:
        for thread in Path(f"/proc/{running.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cpu)
        with recorder(tmp_path / "p.slt", "--pid", running.pid) as recording:
            # What waits already when the recording begins is known from then on only: it ends here.
            running.ask("spin 100")
            times = [time.monotonic_ns()]
            before = schedstats(running.pid)
            times.append(time.monotonic_ns())
            running.ask("spin 800")
            times.append(time.monotonic_ns())
            after = schedstats(running.pid)
            times.append(time.monotonic_ns())
    told = {tid: after[tid] - before.get(tid, 0) for tid in after}
    # Two work. Others of the runtime's threads only look after them, without a P.
    most = max(ran for ran, _ in told.values())
    busy = [tid for tid, (ran, _) in told.items() if ran > 0.2 * most]

    def waited_ns(tid: int, start: int, end: int, bound: str) -> int:
        within = f"tid = {tid} AND end_ns BETWEEN {start} AND {end}"
        return int(
            column(
                recording.trace,
                "SELECT coalesce(sum(ns), 0)::BIGINT FROM (SELECT wait_ns AS ns FROM waits WHERE "
                f"kind IN ('runq_preempt', 'runq_wakeup') AND {within} UNION ALL "
                f"SELECT {bound} FROM missed WHERE {within})",
            )[0]
        )

    for tid in busy:
        ran, waited = told[tid]
        assert waited > 0.2 * ran
        assert 0.98 * waited_ns(tid, times[1], times[2], "low_ns") - 5_000_000 < waited
        assert waited < 1.02 * waited_ns(tid, times[0], times[3], "high_ns") + 5_000_000
        (seen,) = recording.trace.sql(
            "SELECT sum(wait_ns)::BIGINT AS ns, max(held_p) AS p, max(queued) AS queued, "
            "(sum(wait_ns) FILTER (held_p IS NOT NULL))::BIGINT AS held FROM waits "
            f"WHERE kind = 'runq_preempt' AND tid = {tid} AND "
            f"end_ns BETWEEN {times[1]} AND {times[2]}"
        ).to_pylist()
        assert seen["held"] > 0.95 * seen["ns"]
        assert seen["p"] < (os.cpu_count() or 1)
        # No more goroutines than two want to run, but for the runtime's own few.
        assert seen["queued"] <= 4


def test_a_thread_of_io_uring_is_not_taken_for_who_made_it(tmp_path: Path) -> None:
    """It has that one's thread pointer, and runs no goroutine."""
    path = go_program(WITNESS.parent / "ring")
    with subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout
        if int(running.stdout.readline()) < 0:
            pytest.skip("io_uring is not allowed on this machine: NOT TESTED")
        tid = thread_called(running.pid, "iou-sqp-")
        with recorder(tmp_path / "r.slt", "--pid", running.pid) as recording:
            time.sleep(1)
    rows = recording.trace.sql(
        f"SELECT tid = {tid} AS ring, goid, held_p, stack_runtime FROM waits "
        "WHERE kind IN ('runq_wakeup', 'runq_preempt', 'blocked')"
    ).to_pylist()
    of_ring = [row for row in rows if row.pop("ring")]
    assert len(of_ring) > 10
    assert {tuple(row.values()) for row in of_ring} == {(None, None, None)}
    assert any(row["goid"] for row in rows)


def schedstats(pid: int) -> dict[int, NDArray[np.int64]]:
    """Of each thread of a process, how long it ran and waited for a CPU, in ns."""
    return {
        int(thread.name): np.array((thread / "schedstat").read_text().split()[:2], np.int64)
        for thread in Path(f"/proc/{pid}/task").iterdir()
    }
