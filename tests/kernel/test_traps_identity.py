"""Who waited: the idle task never, short-lived threads by name, every life of a reused pid."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from sltrace.capture import libbpf, sizes
from sltrace.capture.probeconfig import Targets
from sltrace.capture.probes import LibbpfProbes
from sltrace.capture.settings import Settings
from sltrace.names.processes import EXIT
from tests.kernel.conftest import Contended, Traps
from tests.support.loads import allowed_cpus, run, voluntary_switches
from tests.support.programs import program
from tests.support.recorder import Record
from tests.support.schedstat import compare, counter, rows_of

pytestmark = [pytest.mark.bpf, pytest.mark.alone]

_SELF = Path("/proc/thread-self")
_SLOTS, _SLEEPS = 1024, 40
_MISSED = 16
"""Kinds of record from here on are waits that were not seen whole (probes/wait_record.h)."""


def test_idle_is_never_a_victim(traps: Traps, contended: Contended) -> None:
    """Half of the samples of Debian's runqlat.bt are the idle task."""
    for trace in (traps.trace, contended.trace):
        assert trace.sql("SELECT * FROM waits WHERE tid = 0 OR pid = 0 LIMIT 1").num_rows == 0
        assert trace.sql("SELECT * FROM missed WHERE tid = 0 LIMIT 1").num_rows == 0
    culprits = traps.trace.sql("SELECT DISTINCT culprit_comm FROM waits WHERE culprit_tid = 0")
    assert culprits.to_pylist() == [{"culprit_comm": "idle"}]


def test_each_life_of_a_reused_pid_has_its_own_name(traps: Traps) -> None:
    outcome = traps.outcomes["pidreuse"]
    assert len({t.tid for t in outcome.threads}) == 1
    assert len(outcome.threads) == 40
    for life in outcome.threads:
        rows = rows_of(traps.trace, life)
        (c,) = compare(traps.trace, [life])
        assert len(rows) >= 2 * (life.nvcsw - c.missed) - 2
        assert {r["comm"] for r in rows} == {life.role}
    # No wait spans two lives: between them there is no such task.
    waits = traps.trace.sql(
        "SELECT end_ns - wait_ns AS start_ns, end_ns FROM waits WHERE tid = ? ORDER BY end_ns",
        (outcome.threads[0].tid,),
    ).to_pylist()
    born = [t.end_ns for t in outcome.threads[:-1]]
    first = [t.start_ns for t in outcome.threads[1:]]
    crossing = [
        w
        for w in waits
        for dead, alive in zip(born, first, strict=True)
        if w["start_ns"] < dead and w["end_ns"] > alive
    ]
    assert crossing == []
    names = traps.trace.sql(
        "SELECT DISTINCT comm FROM tasks WHERE tid = ? AND comm LIKE 'life %'",
        (outcome.threads[0].tid,),
    )
    assert names.num_rows == 40


def test_an_exit_storm_loses_nothing(traps: Traps) -> None:
    outcome, trace = traps.outcomes["exitstorm"], traps.trace
    born = outcome.values["threads_born"] + outcome.values["processes_born"]
    assert born > 500
    for name in ("state_lost", "task_ring_full", "ring_full"):
        assert counter(trace, name) == 0, name
    pid = outcome.by_role("thread")[0].pid
    start, end = (f(t) for f, t in ((min, _starts(outcome)), (max, _ends(outcome))))
    known = trace.sql(
        """SELECT count(DISTINCT (tid, until_ns)) AS n FROM tasks
           WHERE comm = 'exitstorm' AND until_ns BETWEEN ? AND ? AND (pid = ? OR ppid = ?)""",
        (start, end + 100_000_000, pid, pid),
    ).to_pylist()[0]["n"]
    assert born <= known <= born + 1
    # By the life of each thread: its number may have been another's a moment before or after.
    unnamed = trace.sql(
        """SELECT count(*) FILTER (WHERE w.comm <> 'exitstorm') AS wrong, count(*) AS n
           FROM waits w JOIN tasks t ON w.tid = t.tid AND w.pid = t.pid
             AND w.end_ns BETWEEN t.from_ns AND t.until_ns
           WHERE t.comm = 'exitstorm' AND (t.pid = ? OR t.ppid = ?) AND w.end_ns BETWEEN ? AND ?""",
        (pid, pid, start, end),
    ).to_pylist()[0]
    assert unnamed["wrong"] == 0
    assert unnamed["n"] >= born


def test_the_dead_leave_nothing_in_the_kernel() -> None:
    """State that stayed would fill the table of a recorder that runs for days, and be the next
    owner's of the thread id."""
    probes = LibbpfProbes(Settings(ring_bytes=64 << 10), Targets())
    try:
        threads = run("exitstorm", "--duration", 9, "--most", 100, "--report").threads
        time.sleep(0.01)
        table = probes._object.maps["task_table"]
        owners = {_owner(table, tid % table.entries) for tid in {t.tid for t in threads}}
        mine = _owner(table, threading.get_native_id() % table.entries)
    finally:
        probes.close()
    assert len(threads) > 90
    assert owners & {t.tid for t in threads} == set()
    assert mine == threading.get_native_id()


def test_a_thread_that_execs_leaves_its_number() -> None:
    """It has that of its process from then on, and the one it had ends without an exit."""
    code = (
        "import os, sys, threading as t; t.Thread(target=lambda: (print(t.get_native_id(), "
        "flush=True), os.execv('/bin/true', ['true']))).start()"
    )
    probes = LibbpfProbes(Settings(ring_bytes=64 << 10), Targets())
    try:
        tid = int(subprocess.run([sys.executable, "-c", code], capture_output=True).stdout)
        table = probes._object.maps["task_table"]
        owner = _owner(table, tid % table.entries)
        events = probes.task_ring.drain()
    finally:
        probes.close()
    assert owner != tid
    assert events is not None
    assert (events["kind"][events["tid"] == tid] == EXIT).sum() == 1


class _Sleeper(threading.Thread):
    """Sleeps a number of times; its switches of the time, as the kernel counts them."""

    def __init__(self, ms: int) -> None:
        super().__init__()
        self.ms, self.began = ms, threading.Event()
        self.blocks = self.start_ns = self.end_ns = 0

    def run(self) -> None:
        self.began.wait()
        before = voluntary_switches(_SELF)
        self.start_ns = time.monotonic_ns()
        for _ in range(_SLEEPS):
            time.sleep(self.ms / 1000)
        self.end_ns = time.monotonic_ns()
        self.blocks = voluntary_switches(_SELF) - before


@contextmanager
def _numbered(*sleepers: _Sleeper, apart: int) -> Iterator[None]:
    """Starts threads whose ids differ by multiples of `apart`."""
    last = Path("/proc/sys/kernel/ns_last_pid")
    before = last.read_text()
    try:
        for i, sleeper in enumerate(sleepers):
            last.write_text(str((5 + i) * apart - 1))
            sleeper.start()
        yield
    finally:
        last.write_text(before)


def test_threads_that_share_a_slot_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has its own times: popular tools give one to all, or drop whoever comes second."""
    monkeypatch.setattr(sizes, "task_slots", lambda: _SLOTS)
    sleepers = [_Sleeper(ms) for ms in (2, 5, 11)]
    probes = LibbpfProbes(Settings(), Targets())
    try:
        with _numbered(*sleepers, apart=_SLOTS):
            for sleeper in sleepers:
                sleeper.began.set()
            for sleeper in sleepers:
                sleeper.join()
        time.sleep(0.01)
        drained = [records for ring in probes.wait_rings if (records := ring.drain()) is not None]
        counters = dict(zip(probes.counter_names, probes.counters().sum(axis=0), strict=True))
        table = probes._object.maps["task_table"]
        owners = {_owner(table, slot) for slot in range(_SLOTS)}
    finally:
        probes.close()
    tids = [sleeper.native_id or 0 for sleeper in sleepers]
    # Unless those numbers were taken they are where the same search begins.
    assert len({tid % _SLOTS for tid in tids}) < len(sleepers)
    assert counters["state_lost"] == 0
    records = np.concatenate(drained)
    for sleeper in sleepers:
        mine = records[
            (records["tid"] == sleeper.native_id)
            & (records["end_ns"] > sleeper.start_ns)
            & (records["end_ns"] < sleeper.end_ns)
        ]
        missed = np.count_nonzero(mine["kind"] >= _MISSED)
        blocked = mine["blocked_ns"][mine["kind"] < _MISSED]
        assert missed <= 2
        # It can block while it reads how often it did.
        assert 0 <= sleeper.blocks - np.count_nonzero(blocked) <= missed + 4
        assert 0 <= _SLEEPS - np.count_nonzero(blocked > 0.9e6 * sleeper.ms) <= missed
    assert owners & set(tids) == set()


def _owner(table: libbpf.Map, slot: int) -> int:
    """Thread that a slot of the kernel's table is of; 0 for none."""
    value = ctypes.create_string_buffer(4096)
    key = ctypes.c_uint32(slot)
    found = libbpf.library().bpf_map_lookup_elem(table.fd, ctypes.byref(key), value)
    assert found == 0
    return int.from_bytes(value.raw[:4], "little")


def _starts(outcome) -> list[int]:  # type: ignore[no-untyped-def]
    return [t.start_ns for t in outcome.threads]


def _ends(outcome) -> list[int]:  # type: ignore[no-untyped-def]
    return [t.end_ns for t in outcome.threads]


@pytest.mark.parametrize("options", [(), ("--from-thread",)], ids=["main", "thread"])
def test_comm_filter_follows_renames_and_exec(record: Record, tmp_path, options) -> None:  # type: ignore[no-untyped-def]
    link = tmp_path / "newimage"
    link.symlink_to(program("rename"))
    with record("--comm", "after", "--comm", "newimage") as recording:
        outcome = run("rename", "--exec", link, *options)
    trace = recording.trace
    before, after, image = (outcome.one(role) for role in ("before", "after", "exec"))
    assert rows_of(trace, before) == []
    for thread, name in ((after, "after"), (image, "newimage")):
        rows = rows_of(trace, thread)
        assert {r["comm"] for r in rows} == {name}
        queued = [r for r in rows if r["kind"].startswith("runq")]
        assert thread.timeslices - 1 <= len(queued) <= thread.timeslices
    names = {r["comm"] for r in trace.sql("SELECT DISTINCT comm FROM waits").to_pylist()}
    assert names == {"after", "newimage"}


@pytest.mark.skipif(len(allowed_cpus()) < 2, reason="one renames while the other switches")
@pytest.mark.parametrize("loader", ["libbpf", "bcc"])
def test_comm_filter_follows_a_thread_that_another_cpu_renames(record: Record, loader: str) -> None:
    """The event comes before the kernel copies the name: a switch in between has the old one."""
    with record("--comm", "wanted", "--loader", loader) as recording:
        outcome = run("renames", "--duration", 5)
    ends = [r["end_ns"] for r in rows_of(recording.trace, outcome.one("renamed"))]
    seen = {"wanted": 0, "unwanted": 0}
    for name, since, until, slices in outcome.values["names"]:
        waits = sum(since < end < until for end in ends)
        assert name == "wanted" or not waits, (since, until)
        # A wait or two may end between the readings.
        assert name == "unwanted" or slices < 10 or waits, (since, until, slices)
        seen[name] += slices
    assert min(seen.values()) > 1000, seen
