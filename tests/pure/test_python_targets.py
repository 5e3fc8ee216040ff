"""Which processes are followed from when on, and what is told of each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest

from sltrace.capture.python import targets, told
from sltrace.capture.python.source import PythonSource
from sltrace.capture.python.target import Target
from sltrace.capture.python.targets import Targets
from sltrace.capture.python.told import Told
from sltrace.names.proc import with_children
from sltrace.target.python import interpreter as finding
from sltrace.target.python.interpreter import Interpreter, NotReady
from tests.support.pythontargets import PID, SECOND, events, interpreter, nothing


def test_no_more_than_there_is_room_for_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--pid 1` is every process of the machine."""
    monkeypatch.setattr(targets, "_is_command", lambda pid: True)
    monkeypatch.setattr(targets, "with_children", tuple)
    added: list[int] = []

    def add(pid: int, told: Any) -> None:
        added.append(pid)

    watched = Targets(add, nothing, np.dtype([("since_ns", "u8")]), nothing)
    watched.start(range(PID, PID + targets.MAX_TARGETS + 3))
    assert watched.refused == 3
    assert added == list(watched.current) == list(range(PID, PID + targets.MAX_TARGETS))


def test_all_are_followed_before_one_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look takes 8 ms, and children of those that the probes do not know are not seen."""
    used, order = 0, list[tuple[str, int]]()
    # One is born while the others are taken in.
    families = iter([(1, 2, 3), (1, 2, 3, 4), (1, 2, 3, 4)])

    def find(pid: int, *_: Any) -> Interpreter:
        nonlocal used
        used += targets._START_NS // 3 + 1
        order.append(("find", pid))
        return interpreter()

    def look(watched: Targets, target: Target, now: int) -> None:
        nonlocal used
        used += targets._START_NS // 2 + 1
        order.append(("ids", target.pid))
        target.looks, target.next_look_ns = 1, now + SECOND

    def add(pid: int, told: Any) -> None:
        order.append(("add", pid))

    monkeypatch.setattr(time, "monotonic_ns", lambda: 0)
    monkeypatch.setattr(time, "thread_time_ns", lambda: used)
    monkeypatch.setattr(targets, "with_children", lambda pids: next(families))
    monkeypatch.setattr(targets, "parent_of", lambda pid: 0)
    monkeypatch.setattr(targets, "Memory", lambda pid: mock.Mock())
    monkeypatch.setattr(targets, "_is_command", lambda pid: False)
    monkeypatch.setattr(finding, "find", find)
    monkeypatch.setattr(Targets, "_look_for_traces", look)
    monkeypatch.setattr(Target, "described", lambda self, layout: np.zeros(1, layout))
    watched = Targets(add, nothing, np.dtype([("since_ns", "u8")]), nothing)
    watched.start([1])
    followed = [("add", pid) for pid in (1, 2, 3, 4)]
    found = [("find", pid) for pid in (1, 2, 3)]
    assert order == [*followed, *found, ("ids", 1), ("ids", 2)]
    watched.look()
    assert order[9:] == [("find", 4), ("ids", 3)]


def test_what_there_was_at_the_start_is_looked_at_for_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used, looked = 0, list[int]()

    def find(pid: int, *_: Any) -> Interpreter:
        nonlocal used
        used += targets.MAX_LOOK_NS
        looked.append(pid)
        raise NotReady

    monkeypatch.setattr(time, "thread_time_ns", lambda: used)
    monkeypatch.setattr(targets, "Memory", lambda pid: mock.Mock())
    monkeypatch.setattr(finding, "find", find)
    watched = Targets(nothing, nothing, np.dtype([("since_ns", "u8")]), nothing)
    for pid in range(20):
        watched.current[pid] = Target(pid, named=pid >= 10, from_ns=time.monotonic_ns())
    watched.look()
    assert looked == [0, 1, 10, 11, 12, 13]


def test_what_was_born_just_before_it_was_taken_in_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The probes knew its parent by then, and tell of its fork and exec after it was looked at."""
    monkeypatch.setattr(Target, "described", lambda self, layout: np.zeros(1, layout))
    watched = Targets(nothing, nothing, np.dtype([("since_ns", "u8")]), nothing)
    parent, child = (Target(pid, named=True, from_ns=SECOND) for pid in (PID, PID + 1))
    child.python = interpreter()
    watched.current = {PID: parent, PID + 1: child}
    watched.feed(events((PID + 1, targets.FORK, SECOND - 9, PID)))
    watched.feed(events((PID + 1, targets.EXEC, SECOND - 5, 0)))
    assert watched.current[PID + 1] is child
    assert child.parent is parent
    watched.feed(events((PID + 1, targets.EXEC, SECOND + 5, 0)))
    assert watched.current[PID + 1] is not child


def test_a_child_of_one_that_is_still_looked_at_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the workers that a server forks in its first tenth of a second."""
    monkeypatch.setattr(Target, "described", lambda self, layout: np.zeros(1, layout))
    told: list[int] = []

    def publish(pid: int, process: Any) -> None:
        told.append(pid)

    watched = Targets(nothing, publish, np.dtype([("since_ns", "u8")]), nothing)
    known, unknown = (Target(pid, named=True, from_ns=0) for pid in (PID, PID + 1))
    known.python = interpreter()
    watched.current = {PID: known, PID + 1: unknown}
    for parent, child in ((PID, 21), (PID + 1, 22)):
        row = {"pid": child, "kind": targets.FORK, "ns": SECOND, "parent": parent}
        watched.feed(np.array([tuple(row.values())], [(name, "u8") for name in row]))
    assert told == [21]


def test_what_a_worker_ran_can_be_read_in_its_parent_once_it_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also if it was there before the recording; but not if it is another program since, or the
    same one again, which may have its places for good."""
    found = {pid: interpreter() for pid in (PID, 8, 10)}
    found[9] = replace(interpreter(), mapped="8-9")
    stacks = {PID: 1, 8: 1, 9: 1, 10: 2}
    monkeypatch.setattr(targets, "_stack_of", stacks.__getitem__)
    monkeypatch.setattr(targets, "Memory", lambda pid: mock.Mock(pid=pid))
    monkeypatch.setattr(targets, "_is_command", lambda pid: False)
    monkeypatch.setattr(targets, "with_children", tuple)
    monkeypatch.setattr(targets, "parent_of", lambda pid: PID if pid != PID else 1)
    monkeypatch.setattr(finding, "find", lambda pid, *_: found[pid])
    monkeypatch.setattr(Targets, "_look_for_traces", lambda *_: None)
    monkeypatch.setattr(Target, "described", lambda self, layout: np.zeros(1, layout))
    watched = Targets(nothing, nothing, np.dtype([("since_ns", "u8")]), nothing)
    watched.start([PID, 8, 9, 10])
    assert [m.pid for m, _ in watched.memories(8)] == [8, PID]
    row = [(pid, targets.EXIT, SECOND, 0) for pid in (8, 9, 10)]
    watched.feed(np.array(row, [(name, "u8") for name in ("pid", "kind", "ns", "parent")]))
    assert [m.pid for m, _ in watched.memories(8)] == [PID]
    assert watched.memories(9) == watched.memories(10) == []


def test_the_stack_of_a_fork_is_where_its_parents_is() -> None:
    code = "import os, time\nif os.fork(): os.write(1, b'0')\ntime.sleep(60)"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as running:
        try:
            assert running.stdout
            running.stdout.read(1)
            (child,) = with_children([running.pid])[1:]
            assert targets._stack_of(child) == targets._stack_of(running.pid) > 0
            assert targets._stack_of(os.getpid()) != targets._stack_of(running.pid)
        finally:
            os.killpg(running.pid, signal.SIGKILL)


def test_a_process_is_told_of_from_when_it_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what it waited would be a share of time in which nothing was seen of it."""
    now, found = 0, interpreter()
    monkeypatch.setattr(time, "monotonic_ns", lambda: now)
    monkeypatch.setattr(targets, "Memory", lambda pid: mock.Mock())
    monkeypatch.setattr(targets, "parent_of", lambda pid: 1)
    monkeypatch.setattr(finding, "find", lambda *_: found)
    monkeypatch.setattr(Targets, "_look_for_traces", lambda *_: None)
    monkeypatch.setattr(Target, "described", lambda self, layout: np.zeros(1, layout))
    watched = Targets(nothing, nothing, np.dtype([("since_ns", "u8")]), nothing)
    watched.current[PID] = Target(PID, named=True, from_ns=1)
    watched.feed(events((PID, targets.EXEC, 2 * SECOND, 0)))
    service = watched.current[PID]
    assert service.told_from_ns == 2 * SECOND
    now = 20 * SECOND
    watched.look()
    assert service.told_from_ns == now
    assert service.from_ns == 2 * SECOND
    now = 21 * SECOND
    # One before its parent was known, one after that, told of half a second later.
    early, late = 19 * SECOND, 20 * SECOND + 7
    watched.feed(events((8, targets.FORK, early, PID), (9, targets.FORK, late, PID)))
    assert [watched.current[pid].told_from_ns for pid in (8, 9)] == [now, late]
    watched.feed(events((8, targets.EXIT, 20 * SECOND, 0)))
    assert [t.told_from_ns for t in watched.newly_ended()] == [20 * SECOND]


def test_who_was_not_looked_at_in_time_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody would know why a hundred services of a supervisor have no stacks."""
    monkeypatch.setattr(time, "monotonic_ns", lambda: 10 * SECOND)
    monkeypatch.setattr(Target, "described", lambda self, layout: np.zeros(1, layout))
    watched = Targets(nothing, nothing, np.dtype([("since_ns", "u8")]), nothing)
    watched.current[PID] = Target(PID, named=True, from_ns=0, settled=True)
    for pid in range(20, 26):
        watched.feed(events((pid, targets.FORK, 7, PID), (pid, targets.EXEC, SECOND, 0)))
    watched.current[20].foreign = watched.current[21].settled = True
    # A program that lasts a moment, one that is there for a while, and one that executes another.
    watched.feed(events((22, targets.EXIT, SECOND + 9, 0), (23, targets.EXIT, 2 * SECOND, 0)))
    watched.feed(events((24, targets.EXEC, 3 * SECOND, 0)))
    assert watched.unknown == 2
    watched.current[26] = Target(26, named=True, from_ns=0)
    watched.current[27] = Target(27, named=False, from_ns=10 * SECOND - 9)
    watched.close()
    # Of 24's second program and of 25, too.
    assert watched.unknown == 4
    whys = {target.pid: target.why for target in watched.told()}
    assert whys == {PID: "", 26: "the recording ended before it could be looked into"}


def test_nothing_is_told_of_a_process_from_after_the_end() -> None:
    target = Target(PID, named=True, from_ns=1, python=interpreter(), read_ns=50)
    for end, since in ((40, 40), (60, 50)):
        (there,) = Told().rows([], [target], end)
        assert there["from_ns"].to_pylist() == [since]


def test_each_process_that_ended_has_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a master that forks one for each job."""
    monkeypatch.setattr(Target, "described", lambda self, layout: np.zeros(1, layout))
    watched = Targets(nothing, nothing, np.dtype([("since_ns", "u8")]), nothing)
    master = Target(PID, named=True, from_ns=0, python=interpreter(), settled=True, read_ns=0)
    watched.current[PID] = master
    recorded = PythonSource([])
    recorded._targets = watched
    jobs = range(100, 100 + 3 * targets.MAX_TARGETS)
    for pid in jobs:
        watched.feed(events((pid, targets.FORK, pid, PID), (pid, targets.EXIT, pid + 1, 0)))
        if pid % 1000 == 0:
            recorded.targets()
    ended, there = recorded.targets()
    assert ended["pid"].to_pylist() == ended["from_ns"].to_pylist() == list(jobs)
    assert there["pid"].to_pylist() == [PID]
    assert watched.newly_ended() == []
    monkeypatch.setattr(told, "MAX_ENDED", 5)
    few, limited = [Target(n, named=True, from_ns=n, until_ns=n) for n in range(4)], Told()
    limited.rows(few, [], SECOND)
    ended, _ = limited.rows(few, [], SECOND)
    assert ended["pid"].to_pylist() == [0, 1, 2, 3, 0]
    assert limited.refused == 3


def test_what_a_process_ran_is_read_in_the_parent_of_the_last_of_its_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(targets, "Memory", lambda pid: mock.Mock(pid=pid))
    monkeypatch.setattr(Target, "described", lambda self, layout: np.zeros(1, layout))
    watched = Targets(nothing, nothing, np.dtype([("since_ns", "u8")]), nothing)
    for pid in (PID, PID + 1):
        watched.current[pid] = Target(pid, named=True, from_ns=0, python=interpreter())
    for parent in (PID, PID + 1):
        watched.feed(events((20, targets.FORK, parent, parent), (20, targets.EXIT, SECOND, 0)))
    assert [memory.pid for memory, _ in watched.memories(20)] == [PID + 1]


def test_nobody_is_looked_at_after_the_end() -> None:
    watched = mock.Mock(running=set(), **{"newly_mapped.return_value": []})
    recorded = PythonSource([])
    recorded._probes, recorded._targets, recorded._frames = mock.Mock(), watched, mock.MagicMock()
    recorded._drained = mock.MagicMock()
    recorded._drained["waits"].take.return_value = None
    recorded._context, recorded._counters, recorded._since_ns = mock.Mock(), mock.Mock(), 0
    list(recorded.rows())
    assert watched.look.call_count == 1
    recorded.detach(SECOND)
    list(recorded.rows())
    assert watched.look.call_count == 1


def test_who_forks_who_forks_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "_is_command", lambda pid: False)
    monkeypatch.setattr(targets, "with_children", tuple)
    monkeypatch.setattr(Target, "described", lambda self, layout: np.zeros(1, layout))
    watched = Targets(nothing, nothing, np.dtype([("since_ns", "u8")]), nothing)
    first = Target(PID, named=True, from_ns=0)
    first.python = interpreter()
    watched.current = {PID: first}
    names = ("pid", "kind", "ns", "parent")
    for pid in range(PID, PID + 100):
        fork, end = (pid + 1, targets.FORK, SECOND, pid), (pid, targets.EXIT, SECOND, 0)
        watched.feed(np.array([fork, end], [(name, "u8") for name in names]))
    (last,) = watched.current.values()
    depth = 0
    while last := last.parent:  # type: ignore[assignment]
        depth += 1
    assert 1 <= depth <= 3
