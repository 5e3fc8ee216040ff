"""Event loops, the garbage collector and CPU samples against what the process itself measured."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sltrace.analysis.cpusamples import cpu_profile
from sltrace.analysis.cube import build_cube
from sltrace.profiles.pprof import ProfileFrame
from tests.kernel.conftest import Record
from tests.support.pythons import PROGRAMS, WANTED, service

pytestmark = pytest.mark.bpf


def _record(
    record: Record,
    *service_: Any,
    options: tuple[str, ...] = (),
    prefix: tuple[str, ...] = ("nice", "-n", "-20"),
) -> Any:
    """Records a program that logs to its first argument when it ends; trace and log."""
    version, program, log = service_
    with service(version, program, log, 60, prefix=prefix) as process:
        with record("--pid", process.pid, *options) as recording:
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
    rows = trace.sql(
        "SELECT end_ns, wait_ns, reason, stack_runtime FROM waits WHERE kind = 'loop' "
        "ORDER BY end_ns"
    ).to_pylist()
    begin, end = rows[0]["end_ns"], rows[-1]["end_ns"]
    logged = np.array([(a, b) for a, b in log["iterations"] if begin - 5e4 < b < end + 5e4])
    lags = [lag for ns, lag in log["lags"] if begin < ns - lag and ns < end]
    assert {r["reason"] for r in rows} == {"iteration"}
    mine = np.array([r["wait_ns"] for r in rows])
    theirs = logged[:, 1] - logged[:, 0]
    print(
        f"\n{version}: {len(mine)} iterations of {len(theirs)}, sums {mine.sum()} {theirs.sum()}, "
        f"longest {mine.max()} {theirs.max()}, heartbeat {max(lags)}"
    )
    assert abs(len(mine) - len(theirs)) <= 2
    # The log is written in Python, inside the iteration: each is a few microseconds shorter.
    assert mine.sum() == pytest.approx(theirs.sum(), rel=0.05, abs=20_000 * len(mine))
    for quantile in (0.5, 0.9, 0.99):
        expected = np.quantile(theirs, quantile)
        assert np.quantile(mine, quantile) == pytest.approx(expected, rel=0.05, abs=50_000)
    assert mine.max() == pytest.approx(theirs.max(), rel=0.05, abs=100_000)
    # A heartbeat is late by what else runs: at most the longest iteration, and about that once.
    assert 0.5 * mine.max() < max(lags) < 1.1 * mine.max() + 5_000_000


@pytest.mark.parametrize("version", WANTED)
def test_the_task_is_that_of_the_coroutine_that_waits(
    version: str, record: Record, tmp_path: Path
) -> None:
    """Each of the program's coroutines sleeps in a function that only it calls."""
    with (
        service(version, "tasks", 30, tmp_path / "log") as process,
        record("--pid", process.pid, "--python-rate", 0) as recording,
    ):
        time.sleep(0.6)
        process.terminate()
        process.wait(30)
    class_ = "" if version == "3.10" else "Shop."
    # By the program's log of what its tasks were called when they slept.
    log = json.loads((tmp_path / "log").read_text())
    sleeps = recording.trace.sql(
        "SELECT end_ns - wait_ns AS begin, end_ns, task FROM waits "
        "WHERE kind = 'blocked' AND reason = 'sleep' AND task IS NOT NULL"
    ).to_pylist()
    assert len(sleeps) > 20
    for row in sleeps:
        (name,) = (n for a, b, n in log if a <= row["begin"] and row["end_ns"] <= b)
        shown = "" if name == "Task-7" else name[:47]
        coroutine = f"{class_}order" if name else "ping"
        assert row["task"] == (f"{shown} ({coroutine})" if shown else coroutine)
    rows = recording.trace.sql(
        "SELECT f.name, w.task, count(*) AS n FROM waits w "
        "JOIN stacks k ON k.stack_id = w.stack_runtime "
        "JOIN frames f ON f.pid = k.pid AND f.address = k.addresses[1] "
        "WHERE w.kind = 'blocked' AND w.reason = 'sleep' GROUP BY ALL"
    ).to_pylist()
    found = {r["name"]: set() for r in rows}
    for row in rows:
        found[row["name"]].add(row["task"] and row["task"].rpartition("(")[2].rstrip(")"))
        assert row["n"] > 5
    assert found == {"of_order": {f"{class_}order"}, "of_ping": {"ping"}, "of_nobody": {None}}
    loops = recording.trace.sql("SELECT DISTINCT task FROM waits WHERE kind = 'loop'").to_pylist()
    # Both may run in one iteration, which is told by one of them.
    held = {r["task"] for r in loops} - {None}
    assert held
    assert held <= {row["task"] for row in sleeps}


def test_without_system_calls_it_is_an_upper_bound(record: Record, tmp_path: Path) -> None:
    trace, log = _record(record, "3.12", "loop", tmp_path / "log")
    rows = trace.sql("SELECT * FROM waits WHERE kind = 'loop'").to_pylist()
    assert {r["reason"] for r in rows} == {"busy period"}
    begin, end = min(r["end_ns"] - r["wait_ns"] for r in rows), max(r["end_ns"] for r in rows)
    longest = max(b - a for a, b in log["iterations"] if begin <= a and b <= end)
    assert max(r["wait_ns"] for r in rows) >= 0.95 * longest
    assert len(rows) <= len(log["iterations"]) + 2
    # Who held the loop for long is seen by the samples and switches in it.
    slow = trace.sql(
        "SELECT f.name FROM waits w JOIN stacks k ON k.stack_id = w.stack_runtime "
        "JOIN frames f ON f.pid = k.pid AND list_contains(k.addresses, f.address) "
        "WHERE w.kind = 'loop' AND w.wait_ns > 25000000"
    ).to_pylist()
    assert {"rude", "polite"} & {r["name"] for r in slow}


# Of named functions the oldest and the newest; of marked places both there are.
@pytest.mark.parametrize("version", ["3.10", "3.13", "stripped 3.11", "3.14"])
def test_collections_are_those_of_gc_callbacks(
    version: str, record: Record, tmp_path: Path
) -> None:
    trace, log = _record(record, version, "collect", tmp_path / "log")
    rows = trace.sql(
        "SELECT end_ns, wait_ns, reason FROM waits WHERE kind = 'stw' ORDER BY end_ns"
    ).to_pylist()
    assert {r["reason"] for r in rows} == {"gc"}
    first = rows[0]["end_ns"] - rows[0]["wait_ns"]
    logged = [(a, b) for a, b in log if a > first - 1_000_000]
    inside = [r for r in rows if r["end_ns"] < logged[-1][1] + 1_000_000]
    mine, theirs = sum(r["wait_ns"] for r in inside), sum(b - a for a, b in logged)
    print(f"\n{version}: {len(inside)} of {len(logged)}, {mine / 1e6:.2f} {theirs / 1e6:.2f} ms")
    assert len(inside) == pytest.approx(len(logged), abs=2)
    assert mine == pytest.approx(theirs, rel=0.05)


@pytest.mark.parametrize("version", ["3.12"])
def test_samples_are_99_a_second_and_on_the_right_lines(
    version: str, record: Record, tmp_path: Path
) -> None:
    # Shares of its own time, however much of a CPU it gets; nothing must wait for it.
    trace, log = _record(
        record, version, "shares", tmp_path / "log", options=("--stacks", "kernel"), prefix=()
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
    assert ratio == pytest.approx(expected, abs=3 * (0.25 * 0.75 / samples["n"]) ** 0.5)
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


def test_a_loop_rests(record: Record, tmp_path: Path) -> None:
    """A thread that never polls has no iterations."""
    with service("3.12", "contend", 30, 1) as process, record("--pid", process.pid) as recording:
        time.sleep(0.5)
    assert not recording.trace.sql("SELECT 1 FROM waits WHERE kind = 'loop'").num_rows
