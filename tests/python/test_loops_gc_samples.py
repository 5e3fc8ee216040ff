"""Event loops, the garbage collector and CPU samples against what the process itself measured."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sltrace.analysis.cpusamples import cpu_profile
from sltrace.analysis.cube import build_cube
from sltrace.model import Flag
from sltrace.profiles.pprof import ProfileFrame
from sltrace.trace.reader import Trace
from tests.python.conftest import Contending
from tests.support.loads import load, put_first, until_switched
from tests.support.pythons import PROGRAMS, WANTED, interpreter, service, those_here
from tests.support.recorder import Record, of_pids

pytestmark = pytest.mark.bpf


def _record(
    record: Record,
    *service_: Any,
    options: tuple[str, ...] = (),
    first: bool = True,
) -> Any:
    """Records a program that logs to its first argument when it ends; trace and log."""
    version, program, log = service_
    with service(version, program, log, 60) as process:
        with record("--pid", process.pid, *options) as recording:
            if first:
                put_first(process.pid)
            time.sleep(1.2)
            process.terminate()
            process.wait(30)
            recording.wait()
        return recording.trace, json.loads(Path(log).read_text())


@pytest.mark.parametrize("version", ["3.13"])
def test_iterations_are_those_of_the_loop_itself(
    version: str, record: Record, tmp_path: Path
) -> None:
    trace, log = _record(record, version, "loop", tmp_path / "log", options=("--python-loops",))
    rows = _rows(trace, "loop", "iteration")
    mine, theirs = _pairs(rows, log["iterations"])
    # The log is written in Python, inside the iteration: each is a few microseconds shorter.
    assert (mine[:, 0] <= theirs[:, 0]).all()
    assert (mine[:, 1] >= theirs[:, 1]).all()
    _assert_same_moments(mine, theirs, version)
    # A heartbeat is late by what runs meanwhile and by the 2 ms that epoll's clock rounds to.
    late = [(ns - lag, ns) for ns, lag in log["lags"] if mine[0, 0] < ns - lag and ns < mine[-1, 1]]
    late = [(a, b) for a, b in late if b - a > 15_000_000]
    rest = [
        b - a - (np.minimum(mine[:, 1], b) - np.maximum(mine[:, 0], a)).clip(0).sum()
        for a, b in late
    ]
    print(f"{len(late)} late heartbeats, of which {np.median(rest) / 1e6:.2f} ms in no iteration")
    assert len(late) >= 3
    assert -100_000 < np.median(rest) < 3_000_000


@dataclass(frozen=True)
class Tasks:
    """A program on one or more Pythons, recorded until it has logged which task slept when.

    A line of a log is begin, end and the task's name.
    """

    trace: Trace
    pids: dict[str, int]
    logs: dict[str, list[tuple[int, int, str]]]


def _tasks(
    versions: Sequence[str], record: Record, logs: Path, *more: str | int, busy: int | None = None
) -> Tasks:
    with ExitStack() as stack:
        processes = {
            version: stack.enter_context(service(version, "tasks", 30, logs / version))
            for version in versions
        }
        pids = {version: process.pid for version, process in processes.items()}
        options = (*of_pids(pids.values()), *more, "--python-rate", 0)
        recording = stack.enter_context(record(*options))
        time.sleep(0.6)
        if busy:
            until_switched(45_000, busy)
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            assert process.stdout
            process.stdout.readline()
        # The programs are there until their code was read.
        recording.end()
    read = {version: json.loads((logs / version).read_text()) for version in versions}
    return Tasks(recording.trace, pids, read)


@pytest.fixture(scope="module")
def tasks(record_once: Record, tmp_path_factory: pytest.TempPathFactory) -> Tasks:
    return _tasks(those_here(WANTED), record_once, tmp_path_factory.mktemp("logs"))


@pytest.mark.parametrize("version", WANTED)
def test_the_task_is_that_of_the_coroutine_that_waits(version: str, tasks: Tasks) -> None:
    interpreter(version)
    _check_tasks(tasks, version)


def test_the_task_is_that_of_the_coroutine_beside_many_waits(
    record: Record, tmp_path: Path
) -> None:
    """So many of another process that they are written more often than the sources' rows."""
    with load("pingpong", "--duration", 60, "--ping-cpu", 0) as busy:
        tasks = _tasks(["3.12"], record, tmp_path, "--pid", busy.pid, busy=busy.pid)
    assert tasks.trace.sql("SELECT count(*) AS n FROM waits").to_pylist()[0]["n"] > 40_000
    _check_tasks(tasks, "3.12")


def _check_tasks(tasks: Tasks, version: str) -> None:
    """Each of the program's coroutines sleeps in a function that only it calls."""
    trace, pid, log = tasks.trace, tasks.pids[version], tasks.logs[version]
    class_ = "" if version == "3.10" else "Shop."
    # By the program's log of what its tasks were called when they slept.
    sleeps = trace.sql(
        "SELECT end_ns - wait_ns AS begin, end_ns, task FROM waits "
        "WHERE kind = 'blocked' AND reason = 'sleep' AND tid = $1 AND end_ns < $2",
        (pid, log[-1][1]),
    ).to_pylist()
    assert len(sleeps) > 10
    for row in sleeps:
        (name,) = (n for a, b, n in log if a <= row["begin"] and row["end_ns"] <= b)
        shown = "" if name == "Task-7" else name[:47]
        coroutine = f"{class_}order" if name else "ping"
        assert row["task"] == (f"{shown} ({coroutine})" if shown else coroutine)
    rows = trace.sql(
        "SELECT f.name, w.task, count(*) AS n FROM waits w "
        "JOIN stacks k ON k.stack_id = w.stack_runtime "
        "JOIN frames f ON f.pid = k.pid AND f.address = k.addresses[1] "
        "WHERE w.pid = ? AND w.kind = 'blocked' AND w.reason = 'sleep' GROUP BY ALL",
        [pid],
    ).to_pylist()
    found = {r["name"]: set() for r in rows}
    for row in rows:
        found[row["name"]].add(row["task"] and row["task"].rpartition("(")[2].rstrip(")"))
        assert row["n"] > 2
    assert found == {"of_order": {f"{class_}order"}, "of_ping": {"ping"}, "of_nobody": {None}}
    loops = trace.sql(
        "SELECT DISTINCT task FROM waits WHERE pid = ? AND kind = 'loop'", [pid]
    ).to_pylist()
    # Both may run in one iteration, which is told by one of them.
    held = {r["task"] for r in loops} - {None}
    assert held
    assert {name.rpartition("(")[2].rstrip(")") for name in held} <= {f"{class_}order", "ping"}


def test_without_system_calls_it_is_an_upper_bound(record: Record, tmp_path: Path) -> None:
    trace, log = _record(record, "3.12", "loop", tmp_path / "log")
    rows = _rows(trace, "loop", "busy period")
    logged = [(a, b) for a, b in log["iterations"] if rows[0, 0] <= a and b <= rows[-1, 1]]
    within = [np.flatnonzero((rows[:, 0] <= a) & (b <= rows[:, 1])) for a, b in logged]
    # An iteration is in one of them, and most of them have little else.
    rest = rows[:, 1] - rows[:, 0]
    for found, (a, b) in zip(within, logged, strict=True):
        rest[found] -= b - a
    assert all(len(found) <= 1 for found in within)
    assert sum(len(found) for found in within) >= 0.99 * len(logged)
    print(f"\n{len(rows)} periods, {len(logged)} iterations, {np.median(rest):.0f} ns beside")
    assert 0 <= np.median(rest) < 200_000
    # Who held the loop for long is seen by the samples and switches in it.
    slow = trace.sql(
        "SELECT f.name FROM waits w JOIN stacks k ON k.stack_id = w.stack_runtime "
        "JOIN frames f ON f.pid = k.pid AND list_contains(k.addresses, f.address) "
        "WHERE w.kind = 'loop' AND w.wait_ns > 25000000"
    ).to_pylist()
    assert {"rude", "polite"} & {r["name"] for r in slow}


# Of named functions the oldest and the newest; of marked places both there are.
_COLLECTING = ["3.10", "3.13", "stripped 3.11", "3.14"]


@dataclass(frozen=True)
class Collecting:
    """A process for each of _COLLECTING, recorded together, and when its collector ran."""

    trace: Trace
    pids: dict[str, int]
    logs: dict[str, list[tuple[int, int]]]


@pytest.fixture(scope="module")
def collecting(record_once: Record, tmp_path_factory: pytest.TempPathFactory) -> Collecting:
    logs = tmp_path_factory.mktemp("collecting")
    with ExitStack() as stack:
        processes = {
            version: stack.enter_context(service(version, "collect", logs / version, 200))
            for version in those_here(_COLLECTING)
        }
        pids = {version: process.pid for version, process in processes.items()}
        with record_once(*of_pids(pids.values())) as recording:
            # They sleep once after each.
            until_switched(70, *pids.values())
            for process in processes.values():
                process.terminate()
                process.wait(30)
            recording.wait()
    read = {version: json.loads((logs / version).read_text()) for version in pids}
    return Collecting(recording.trace, pids, read)


@pytest.mark.parametrize("version", _COLLECTING)
def test_collections_are_those_of_gc_callbacks(version: str, collecting: Collecting) -> None:
    interpreter(version)
    rows = _rows(collecting.trace, "stw", "gc", collecting.pids[version])
    mine, theirs = _pairs(rows, collecting.logs[version])
    _assert_same_moments(mine, theirs, version)


@pytest.mark.alone
def test_a_collection_says_how_long_it_had_no_cpu(record: Record) -> None:
    """Also where its thread was moved to another CPU's queue while it waited."""
    with service("3.12", "moved", 40) as process, record("--pid", process.pid) as recording:
        time.sleep(2.5)
    rows = recording.trace.sql(
        "SELECT kind, end_ns - wait_ns AS begin, end_ns, wait_ns, runq_ns, flags FROM waits "
        "WHERE tid = ? AND kind IN ('stw', 'runq_wakeup', 'runq_preempt') ORDER BY end_ns",
        [process.pid],
    ).to_pylist()
    queued = [r for r in rows if r["kind"] != "stw"]
    collections = [r for r in rows if r["kind"] == "stw" and r["begin"] > queued[0]["begin"]]
    # One may reach over the begin of a collection, and one be missed.
    inside = [
        sum(q["wait_ns"] for q in queued if c["begin"] <= q["begin"] and q["end_ns"] <= c["end_ns"])
        for c in collections
    ]
    told = [c["runq_ns"] for c in collections]
    moved = sum(bool(r["flags"] & Flag.MIGRATED_QUEUED) for r in queued)
    print(f"\n{len(told)}: {sum(told) / 1e6:.0f} of {sum(inside) / 1e6:.0f} ms, {moved} moved")
    assert sum(inside) > 200_000_000
    assert moved > 20
    assert sum(told) == pytest.approx(sum(inside), rel=0.05)


def _rows(trace: Trace, kind: str, reason: str, pid: int | None = None) -> NDArray[np.int64]:
    """Begin and end of the rows of a kind, which all have this reason, in order; of a process."""
    rows = trace.sql(
        "SELECT end_ns - wait_ns AS begin, end_ns, reason FROM waits "
        "WHERE kind = $1 AND pid = coalesce($2, pid) ORDER BY 1",
        [kind, pid],
    ).to_pylist()
    assert {r["reason"] for r in rows} == {reason}
    return np.array([(r["begin"], r["end_ns"]) for r in rows])


def _pairs(
    rows: NDArray[np.int64], log: list[tuple[int, int]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and what the process logged, where each overlaps with exactly one of the other.

    Not at the edges: the log may begin before the recording, and end before the last row.
    """
    logged = np.array(log)
    logged = logged[logged[:, 1] > rows[0, 0]]
    rows = rows[rows[:, 0] < logged[-1, 1]]
    overlaps = (rows[:, None, 0] < logged[None, :, 1]) & (logged[None, :, 0] < rows[:, None, 1])
    assert (overlaps.sum(axis=1) == 1).all(), "a row that is not one of the log's"
    assert (overlaps.sum(axis=0) == 1).all(), "one of the log's that has not one row"
    return rows, logged


def _assert_same_moments(mine: NDArray[np.int64], theirs: NDArray[np.int64], name: str) -> None:
    """By medians: whoever is preempted between the log and the probe counts as one of many."""
    begins, ends = np.median(abs(mine - theirs), axis=0)
    print(f"\n{name}: {len(mine)}, medians of the differences {begins:.0f} and {ends:.0f} ns")
    assert len(mine) > 50
    assert begins < 20_000
    assert ends < 20_000
    long = theirs[:, 1] - theirs[:, 0] > 1_000_000
    assert long.any()
    ratios = (mine[long, 1] - mine[long, 0]) / (theirs[long, 1] - theirs[long, 0])
    assert np.median(ratios) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("version", ["3.12"])
def test_samples_are_99_a_second_and_on_the_right_lines(
    version: str, record: Record, tmp_path: Path
) -> None:
    # Shares of its own time, however much of a CPU it gets; nothing must wait for it.
    trace, log = _record(
        record, version, "shares", tmp_path / "log", options=("--stacks", "kernel"), first=False
    )
    source = (PROGRAMS / "shares.py").read_text().splitlines()
    lines = {w: source.index(f"            spin(2000)  # {w}") + 1 for w in ("three", "one")}
    rows = trace.sql(
        "SELECT f.line, count(*) AS n FROM samples s JOIN stacks k ON k.stack_id = s.stack_runtime "
        "JOIN frames f ON f.pid = k.pid AND list_contains(k.addresses, f.address) "
        "WHERE s.source = 'cpu' AND f.name = 'main' GROUP BY f.line"
    ).to_pylist()
    by_line = {r["line"]: r["n"] for r in rows}
    samples = trace.sql(
        "SELECT count(*) AS n, sum(weight_ns)::BIGINT AS ns, min(ns) AS first, max(ns) AS last "
        "FROM samples"
    ).to_pylist()[0]
    cpu = [spent for ns, spent in log["cpu"] if samples["first"] <= ns <= samples["last"]]
    used = cpu[-1] - cpu[0]
    print(f"\n{version}: {samples} of {used / 1e9:.2f} s CPU, by line {by_line}")
    # Three standard deviations of so many, at least a tenth.
    assert samples["ns"] == pytest.approx(used, rel=max(0.1, 3 * samples["n"] ** -0.5))
    three, one = (by_line.get(lines[word], 0) for word in ("three", "one"))
    ratio = three / (three + one)
    expected = log["three"] / (log["three"] + log["one"])
    # Three standard deviations of so many samples.
    assert ratio == pytest.approx(expected, abs=3 * (0.25 * 0.75 / (three + one)) ** 0.5)
    # And what native and kernel functions took, below the Python function that called them.
    profile = cpu_profile(trace, build_cube(trace))
    assert profile
    inside = {"zlib": 0, "kernel": 0}
    for stack, ns in zip(profile.stacks, profile.values, strict=True):
        names = [profile.frames[i].name for i in stack]
        for part, function in (("zlib", "sums"), ("kernel", "zeros")):
            if any(_is_of(profile.frames[i], part) for i in stack[-2:]) and function in names[2]:
                assert names[:2] == ["<module> (shares.py)", "main (shares.py)"]
                inside[part] += ns
    for part, ns in inside.items():
        expected = log[part] / sum(log[name] for name in ("three", "one", "zlib", "kernel"))
        print(f"{part} {ns / profile.total:.3f} of {expected:.3f}, {profile.total} ns")
        assert 0.1 < expected < 0.9
        assert ns / profile.total == pytest.approx(expected, abs=1.5 / samples["n"] ** 0.5)


def _is_of(frame: ProfileFrame, part: str) -> bool:
    return frame.file.startswith("libz.so") if part == "zlib" else frame.language == "kernel"


def test_a_thread_that_never_polls_has_no_iterations(contending: Contending) -> None:
    assert not contending.trace.sql("SELECT 1 FROM waits WHERE kind = 'loop'").num_rows
