"""Recordings of Go programs against what the programs' own runtime says of themselves."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sltrace.target.go.errors import RefusedError
from sltrace.target.go.histograms import GC_PAUSES, LATENCIES, SINCE_1_20, STW_HISTOGRAMS
from sltrace.target.go.process import GoProcess, identify, look_into
from sltrace.trace.reader import Trace
from tests.support.cgroups import cgroup
from tests.support.golang import MODES, OLD_VERSION, VERSIONS, Witness, go_program, witness
from tests.support.programs import ROOT
from tests.support.recorder import recorder, sltrace
from tests.support.traces import SECOND

pytestmark = pytest.mark.bpf

WITNESS = ROOT / "tests" / "go" / "programs" / "witness"
STOPPING_GC, _, TOTAL_GC, TOTAL_OTHER = STW_HISTOGRAMS
BUCKETS = SINCE_1_20.buckets


def difference(
    after: dict[str, list[int]], before: dict[str, list[int]], name: str, buckets: int = BUCKETS
) -> list[int]:
    """Counts per bucket, without the runtime's bucket below 0."""
    pairs = zip(after[name], before[name], strict=True)
    return [a - b for a, b in pairs][1 : buckets + 1]


def bucketed(waits: Any) -> list[int]:
    """The same from single waits, by the bounds that runtime/metrics documents."""
    low = SINCE_1_20.bounds[0][:BUCKETS]
    return np.bincount(np.searchsorted(low, waits, side="right") - 1, minlength=BUCKETS).tolist()


def column(trace: Trace, query: str) -> Any:
    return trace.sql(query).column(0).to_numpy()


def counters_of(trace: Trace) -> dict[str, int]:
    found: dict[str, int] = trace.meta["sources"]["go"]["counters"]
    return found


def _measured(running: Witness, work: str) -> tuple[list[int], Any, Any]:
    """The program's own metrics before and after some work, and when each was asked and known."""
    times = [time.monotonic_ns()]
    before = running.ask("metrics")
    times.append(time.monotonic_ns())
    running.ask(work)
    times.append(time.monotonic_ns())
    after = running.ask("metrics")
    times.append(time.monotonic_ns())
    return times, before, after


# Each version, and each way to build.
@pytest.mark.parametrize(("version", "mode"), list(zip(VERSIONS, MODES, strict=True)))
def test_waits_are_the_runtimes_own(tmp_path: Path, version: str, mode: str) -> None:
    """Bucket by bucket what /sched/latencies:seconds and the pauses say, read within the program.

    The program reads its histograms between sending the question and having the answer, so its
    counts lie between those of the waits in the shorter and in the longer time. A wait of 0 ns is
    no row but counted: the runtime notes one when a goroutine's state changed without it ever
    being runnable, and up to 1.25 for each return from a system call.
    """
    with witness(version, mode) as running:
        running.ask("work 50")
        with recorder(tmp_path / "w.slt", "--pid", running.pid) as recording:
            time.sleep(0.2)
            times, before, after = _measured(running, "work 1000")
        trace = recording.trace
    counts = counters_of(trace)
    assert counts["go_ring_full"] == counts["go_strange"] == counts["go_scratch_full"] == 0

    def between(start: int, end: int, condition: str) -> list[int]:
        return bucketed(
            column(
                trace,
                f"SELECT wait_ns FROM waits WHERE end_ns BETWEEN {start} AND {end} AND {condition}",
            )
        )

    for name, condition in (
        (LATENCIES, "kind = 'goroutine'"),
        (TOTAL_GC, "kind = 'stw' AND reason = 'GC'"),
    ):
        inner = between(times[1], times[2], condition)
        outer = between(times[0], times[3], condition)
        if name == LATENCIES:
            outer[0] += counts["go_zeros"]
        told = difference(after, before, name)
        assert all(a <= b <= c for a, b, c in zip(inner, told, outer, strict=True))
        assert sum(told) > (50 if name == LATENCIES else 0)
        assert sum(outer[1:]) - sum(inner[1:]) <= 0.2 * sum(told) + 4


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


def test_goroutines_are_those_of_pprof(tmp_path: Path) -> None:
    """By addresses of the whole stack: its debug=1 text has the same return addresses."""
    with witness() as running:
        running.ask("park 90")
        with recorder(tmp_path / "g.slt", "--pid", running.pid) as recording:
            time.sleep(1.5)
            profile = running.ask("goroutines")
        trace = recording.trace
    theirs = {
        tuple(int(a, 16) for a in m[2].split()): int(m[1])
        for m in re.finditer(r"^(\d+) @((?: 0x\w+)+)$", profile, re.M)
    }
    table = trace.sql(
        "WITH last AS (SELECT max(ns) AS ns FROM samples) SELECT addresses, reason, count "
        "FROM samples JOIN last USING (ns) JOIN stacks ON stack_runtime = stack_id "
        "WHERE state = 'waiting'"
    ).to_pylist()
    parked = [row for row in table if row["count"] == 30]
    assert sorted(row["reason"] for row in parked) == [
        "chan receive",
        "select",
        "sync.Mutex.Lock",
    ]
    for row in parked:
        # The profile adds an address of its own for each function that was inlined.
        addresses = set(row["addresses"])
        assert len(addresses) >= 4
        same = [count for stack, count in theirs.items() if addresses <= set(stack)]
        assert 30 in same
    named = trace.sql("SELECT DISTINCT name, file FROM frames WHERE name LIKE 'main.%'").to_pylist()
    files = {n["name"]: n["file"] for n in named}
    for name in ("main.receives", "main.selects"):
        assert files[name].endswith("witness/main.go")
    # What waits there is the library's Lock, inlined.
    assert files["main.locks"].endswith("sync/mutex.go")


@pytest.mark.parametrize("version", [VERSIONS[0], VERSIONS[-1]])
def test_trace_ids_are_those_logged(tmp_path: Path, version: str) -> None:
    """None is wrong, and nearly all waits of goroutines within a trace have theirs."""
    with witness(version) as running:
        with recorder(tmp_path / "t.slt", "--pid", running.pid) as recording:
            log = running.ask("traced 1000")
        trace = recording.trace
    logged = {(int(goid), trace_id) for goid, trace_id in log}
    within = {goid for goid, _ in logged}
    rows = trace.sql(
        "SELECT kind, goid, trace_id, span_id, id_source FROM waits WHERE goid IS NOT NULL"
    ).to_pylist()
    tagged = [r for r in rows if r["trace_id"]]
    assert len(tagged) > 200
    for row in tagged:
        assert (row["goid"], row["trace_id"]) in logged
        assert row["trace_id"].endswith(row["span_id"])
        assert row["id_source"] == "pprof_labels"
    for kinds in (("goroutine",), ("runq_wakeup", "runq_preempt", "blocked")):
        theirs = [r for r in rows if r["goid"] in within and r["kind"] in kinds]
        have = sum(1 for r in theirs if r["trace_id"])
        assert have >= 0.95 * len(theirs), kinds
    said = sltrace("stat", recording.path, "--by", "trace_id", "--only", "kind=goroutine", "--json")
    assert said.code == 0, said.err
    listed = set(re.findall(r'"([0-9a-f]{32})"', said.out))
    assert listed
    assert listed <= {trace_id for _, trace_id in logged}


def test_level_2_knows_who_woke_whom(tmp_path: Path) -> None:
    """A goroutine that only ever another one wakes, every 3 ms."""
    with witness() as running:
        with recorder(tmp_path / "l2.slt", "--pid", running.pid, "--go-level", 2) as recording:
            waker, woken = (int(g) for g in running.ask("handover 400"))
        trace = recording.trace
    rows = trace.sql(
        "SELECT wait_ns, waker_goid, reason, stack_runtime, waker_stack_runtime FROM waits "
        f"WHERE kind = 'goroutine_blocked' AND goid = {woken}"
    ).to_pylist()
    assert 400 / 8 * 0.5 < len(rows) < 400 / 8 * 2
    assert {r["waker_goid"] for r in rows} <= {waker}
    assert {r["reason"] for r in rows} == {"chan receive"}
    assert sorted(r["wait_ns"] for r in rows)[len(rows) // 2] >= 3_000_000
    names = trace.sql(
        "SELECT DISTINCT name FROM stacks, frames WHERE list_contains(addresses, address) AND "
        f"stack_id = {rows[0]['waker_stack_runtime']}"
    ).to_pylist()
    assert "main.handOver" in {n["name"] for n in names}


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
            times, before, after = _measured(running, "traced 300")
        trace = recording.trace

    def rows(condition: str) -> int:
        return int(column(trace, f"SELECT count(*) FROM waits WHERE {condition}")[0])

    handed = f"kind = 'goroutine_blocked' AND goid = {woken}"
    assert rows(f"{handed} AND reason = 'chan receive' AND waker_goid = {waker}") == 150
    told = sum(difference(after, before, LATENCIES)[1:])
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


def test_a_killed_recorder_leaves_the_service_as_it_was(tmp_path: Path) -> None:
    """And it is left at once, killed or not."""
    with witness() as running:
        process = look_into(identify(running.pid))
        for number in (signal.SIGKILL, signal.SIGINT):
            path = tmp_path / f"{number}.slt"
            with recorder(path, "--pid", running.pid, "--go-level", 2) as recording:
                running.tell("work 600")
                time.sleep(0.3)
                assert _breakpoints(process) == 2
                os.kill(recording.pid, number)
                told = time.monotonic()
                while _breakpoints(process):
                    time.sleep(0.002)
                # 0.06 to 0.08 s on an idle machine, most of it the kernel's own wait.
                assert time.monotonic() - told < 0.3
                recording.wait()
                assert running.answer() == "done"
            assert running.ask("work 100") == "done"
            assert running.process.poll() is None
            assert _breakpoints(process) == 0


def _breakpoints(process: GoProcess) -> int:
    """Of the functions probed, those whose code in memory is not that of the file."""
    sites = [process.sites.record, process.sites.tracked]
    changed = 0
    for site in sites:
        assert site is not None
        changed += process.memory.read(site + process.bias, 1) != process.image.read(site, 1)
    return changed


def test_a_service_that_ends_is_no_error(tmp_path: Path) -> None:
    with witness() as running, recorder(tmp_path / "e.slt", "--pid", running.pid) as recording:
        running.ask("work 300")
        running.process.kill()
        running.process.wait()
        time.sleep(1.2)
        assert recording.end().code == 0
        target = recording.trace.sql(
            "SELECT level, why, until_ns FROM targets WHERE runtime = 'go'"
        ).to_pylist()[0]
    assert target["level"] == 1
    assert target["until_ns"]


def test_a_version_from_the_future_is_refused(tmp_path: Path) -> None:
    """The rest of the recording is whole, and the reason is told."""
    whole = go_program(WITNESS, mode="stripped").read_bytes()
    future = tmp_path / "future"
    future.write_bytes(whole.replace(VERSIONS[-1].encode(), b"1.99.3"))
    future.chmod(0o755)
    with subprocess.Popen([future], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        try:
            time.sleep(0.2)
            with recorder(tmp_path / "f.slt", "--pid", process.pid) as recording:
                time.sleep(0.5)
            assert process.poll() is None
        finally:
            process.kill()
    target = recording.trace.sql(
        "SELECT version, level, why FROM targets WHERE runtime = 'go'"
    ).to_pylist()[0]
    assert target["version"] == "go1.99.3"
    assert target["level"] is None
    assert "Go 1.19 and 1.21 to 1.27 are known" in target["why"]
    assert "no DWARF" in target["why"]
    assert recording.trace.meta["finished"]


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
            times = [time.monotonic_ns()]
            before = schedstats(running.pid)
            times.append(time.monotonic_ns())
            running.ask("spin 1000")
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


def schedstats(pid: int) -> dict[int, NDArray[np.int64]]:
    """Of each thread of a process, how long it ran and waited for a CPU, in ns."""
    return {
        int(thread.name): np.array((thread / "schedstat").read_text().split()[:2], np.int64)
        for thread in Path(f"/proc/{pid}/task").iterdir()
    }


def test_a_service_replaced_by_exec_is_let_go(tmp_path: Path) -> None:
    """While it is being attached to, and while it is recorded; what it became is left alone."""
    with witness() as running:
        identity = identify(running.pid)
        running.tell("exec")
        wait_for_program(running.pid, "cat")
        with pytest.raises(RefusedError, match=r"cannot be read|replaced"):
            look_into(identity)
    with (
        witness() as running,
        recorder(tmp_path / "x.slt", "--pid", running.pid, "--go-level", 2) as recording,
    ):
        running.ask("work 100")
        running.tell("exec")
        wait_for_program(running.pid, "cat")
        time.sleep(1.2)
        running.tell("still here")
        assert running.process.stdout
        assert running.process.stdout.readline() == "still here\n"
        assert recording.end().code == 0
    (target,) = targets(recording.trace)
    assert (target["level"], target["why"]) == (2, "")
    assert target["until_ns"]


def wait_for_program(pid: int, name: str) -> None:
    for _ in range(200):
        if Path(f"/proc/{pid}/comm").read_text().strip() == name:
            return
        time.sleep(0.01)
    raise AssertionError(f"{pid} never became {name}")


TRACER = """
import ctypes, os, sys
libc, pid = ctypes.CDLL(None), int(sys.argv[1])
assert libc.ptrace(0x4206, pid, None, None) == 0  # PTRACE_SEIZE
print("seized", flush=True)
while True:
    _, status = os.waitpid(pid, 0x40000000)  # __WALL
    if not os.WIFSTOPPED(status):
        break
    libc.ptrace(7, pid, None, ctypes.c_void_p(os.WSTOPSIG(status)))  # PTRACE_CONT
"""


def test_a_service_that_a_debugger_traces_is_recorded_all_the_same(tmp_path: Path) -> None:
    """Neither reading its memory nor probing it is tracing: nobody stands in the other's way."""
    with witness() as running:
        debugger = [sys.executable, "-c", TRACER, str(running.pid)]
        with subprocess.Popen(debugger, stdout=subprocess.PIPE, text=True) as tracer:
            assert tracer.stdout
            assert tracer.stdout.readline() == "seized\n"
            with recorder(tmp_path / "d.slt", "--pid", running.pid, "--go-level", 2) as recording:
                assert running.ask("work 300") == "done"
            status = Path(f"/proc/{running.pid}/status").read_text()
            assert f"TracerPid:\t{tracer.pid}\n" in status
            running.process.kill()
            tracer.wait(10)
    (target,) = targets(recording.trace)
    assert (target["level"], target["why"]) == (2, "")
    assert column(recording.trace, "SELECT count(*) FROM waits WHERE kind = 'goroutine'")[0] > 10


def targets(trace: Trace) -> list[dict[str, Any]]:
    """Of Go."""
    return trace.sql("SELECT * FROM targets WHERE runtime = 'go' ORDER BY pid").to_pylist()


@pytest.mark.parametrize("through", ["", "sh -c"])
def test_a_command_is_found_once_it_runs(tmp_path: Path, through: str) -> None:
    """By way of a shell it is another process, which begins later and whose parent has ended."""
    program = f"{go_program(ROOT / 'examples' / 'go_fanout')} -cured -d 1200ms"
    script = f"( (sleep 0.2; {program}) & ); sleep 1.6"
    command = ["sh", "-c", script] if through else program.split()
    done = sltrace("record", "-o", tmp_path / "c.slt", "--", *command)
    assert done.code == 0, done.err
    trace = Trace.open(tmp_path / "c.slt")
    (target,) = targets(trace)
    assert (target["level"], target["why"]) == (1, "")
    assert 0 < attached_after_ns(trace, target["pid"]) < SECOND
    assert column(trace, "SELECT count(*) FROM waits WHERE kind = 'goroutine'")[0] > 20
    assert column(trace, "SELECT count(*) FROM samples WHERE source = 'wall'")[0]
    assert trace.meta["sources"]["go"]["level_asked_for"] == 1


def attached_after_ns(trace: Trace, pid: int) -> int:
    """How long after a process became its program it was attached to, in ns."""
    (found,) = trace.sql(
        "SELECT max(t.from_ns) - max(n.from_ns) AS ns FROM targets AS t JOIN tasks AS n "
        f"USING (pid) WHERE pid = {pid} AND tid = {pid} AND runtime = 'go' "
        "AND n.from_ns < t.from_ns"
    ).to_pylist()
    return int(found["ns"])


def test_what_begins_meanwhile_is_found(tmp_path: Path) -> None:
    """Where no Go process was: by cgroup and name with a probe, and anywhere without."""
    name = go_program(WITNESS).name
    with (
        cgroup("sltrace-go-late") as group,
        recorder(tmp_path / "all.slt") as whole,
        recorder(tmp_path / "some.slt", "--cgroup", group.name, "--comm", name) as some,
        witness(join=group.procs) as inside,
        witness() as outside,
    ):
        outside.tell("work 900")
        inside.ask("work 900")
        assert some.end().code == whole.end().code == 0
    assert {t["pid"] for t in targets(some.trace)} == {inside.pid}
    for trace, one, level in (
        (some.trace, inside, 1),
        (whole.trace, inside, 0),
        (whole.trace, outside, 0),
    ):
        (target,) = (t for t in targets(trace) if t["pid"] == one.pid)
        assert (target["level"], target["why"]) == (level, "")
        assert 0 < attached_after_ns(trace, one.pid) < SECOND
        (found,) = trace.sql(
            "SELECT count(*) FILTER (kind = 'goroutine') AS waits, count(goid) AS goids FROM waits "
            f"WHERE pid = {one.pid}"
        ).to_pylist()
        assert (found["waits"] > 20) == (level > 0)
        # The kernel's waits have the goroutine as well, from then on.
        assert found["goids"] > found["waits"] + 20


def test_what_nobody_named_is_found_and_read_but_not_probed(tmp_path: Path) -> None:
    """Of the machine, or a cgroup. Probes are for the asking."""
    with cgroup("sltrace-go-found") as group, witness() as inside, witness() as outside:
        group.procs.write_text(str(inside.pid))
        with recorder(tmp_path / "all.slt") as whole:
            inside.ask("work 300")
        found = {t["pid"]: (t["level"], t["why"]) for t in targets(whole.trace)}
        for one in (inside, outside):
            assert found[one.pid] == (0, "")
        assert counters_of(whole.trace)["go_hits"] == 0
        # The kernel join needs no probe in the process.
        joined = f"pid = {inside.pid} AND goid IS NOT NULL"
        assert column(whole.trace, f"SELECT count(*) FROM waits WHERE {joined}")[0]
        options = ("--cgroup", group.name, "--go-level", 2)
        with recorder(tmp_path / "some.slt", *options) as some:
            inside.ask("work 200")
    assert [(t["pid"], t["level"]) for t in targets(some.trace)] == [(inside.pid, 2)]
